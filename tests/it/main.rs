//! it

fn main() {}
