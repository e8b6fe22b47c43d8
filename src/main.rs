//! The `portway` program: arguments to [`portway::cli`], its answer to the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    portway::cli::main()
}
