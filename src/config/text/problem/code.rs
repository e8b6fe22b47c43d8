//! The codes of problems: stable identifiers for programs and tests.
//!
//! A message may change its words, a code is never renamed. There is one code for each kind of
//! cure, so several messages share a code. The README lists all of them.

/// Declares the codes with their identifiers.
macro_rules! codes {
    ($($(#[$docs:meta])+ $code:ident = $text:literal,)+) => {
        /// What kind of problem, or warning, it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[$docs])+ $code,)+
        }

        impl Code {
            /// Every code.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$code),+];

            /// The identifier.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $text,)+
                }
            }
        }
    };
}

codes! {
    // The text.
    /// A file cannot be read.
    UnreadableFile = "unreadable-file",
    /// A text is not TOML.
    Syntax = "syntax",
    /// A variable in a text is missing, or is written wrongly.
    InvalidVariable = "invalid-variable",
    /// An included file is included before, by itself or by another file.
    RepeatedInclude = "repeated-include",
    /// No file matches a pattern of `include`.
    NoMatch = "no-match",

    // Keys and values.
    /// A key, or a variable of the environment, does not exist.
    UnknownKey = "unknown-key",
    /// This version does not have a key, a value or a variable.
    Unsupported = "unsupported",
    /// A key is in the wrong table, or in the wrong file.
    MisplacedKey = "misplaced-key",
    /// A key is missing that another key needs.
    MissingKey = "missing-key",
    /// Two keys exclude each other, or contradict each other.
    ConflictingKeys = "conflicting-keys",
    /// A value has the wrong type.
    WrongType = "wrong-type",
    /// A value cannot be read, or is out of bounds.
    InvalidValue = "invalid-value",
    /// A publish spec, a listener or a target cannot be read.
    InvalidSpec = "invalid-spec",
    /// A name has the wrong form.
    InvalidName = "invalid-name",
    /// An address, a network or a country cannot be read.
    InvalidEntry = "invalid-entry",
    /// A list, or a string, is empty.
    Empty = "empty",
    /// There are more things than portway takes.
    TooMany = "too-many",

    // What one thing says of another.
    /// Two mappings, or two lists, have one name.
    DuplicateName = "duplicate-name",
    /// A list names a thing twice.
    DuplicateEntry = "duplicate-entry",
    /// A list does not exist.
    UnknownList = "unknown-list",
    /// Two listeners have one port.
    PortInUse = "port-in-use",
    /// Two listeners ask for one port of the router.
    RouterPortInUse = "router-port-in-use",
    /// A range of target ports, or of external ports, does not fit the listen ports.
    RangeMismatch = "range-mismatch",
    /// TCP cannot use an address of several machines.
    NotOneMachine = "not-one-machine",
    /// No way leads from an address to another.
    Unreachable = "unreachable",
    /// A mapping leads to itself.
    Loop = "loop",
    /// A mapping leads to portway's own API.
    ExposedApi = "exposed-api",
    /// The sandbox of the running process does not let it.
    Sandboxed = "sandboxed",
    /// The configuration forwards nothing.
    NothingToForward = "nothing-to-forward",

    // What works, and may not be meant.
    /// A key, a table or a file does nothing.
    NoEffect = "no-effect",
    /// A name may lead back to its mapping.
    PossibleLoop = "possible-loop",
    /// Everyone can reach a service that needs protection.
    ExposedService = "exposed-service",
    /// A service does not work through a forwarded port.
    UnsuitedService = "unsuited-service",
    /// The kernel may give the port to outgoing traffic.
    EphemeralPort = "ephemeral-port",
    /// An address does not belong to this machine.
    ForeignAddress = "foreign-address",
    /// An entry looks like one address and stands for a whole network.
    BroadEntry = "broad-entry",
    /// A value makes trouble likely.
    UnwiseValue = "unwise-value",
    /// A state is lost when portway ends.
    NotPersisted = "not-persisted",
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_code_and_no_other() {
        let readme = include_str!("../../../../README.md");
        let (_, list) = readme.split_once("\nThe codes are").unwrap();
        let (list, _) = list.split_once("\n\n").unwrap();
        let listed: Vec<_> = list.split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>());
    }
}
