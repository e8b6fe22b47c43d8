//! Freeze, hand-over and resume, through real sockets.
