//! The `portway` program: arguments to [`portway::cli`], its answer to the exit code.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    portway::cli::main()
}
