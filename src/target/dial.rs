//! Opening a connection to a target.
