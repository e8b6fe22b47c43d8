//! Listening sockets: made, configured and bound in one place.
