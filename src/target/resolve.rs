//! Names to addresses.
use crate::mapping::TargetAddr;
use std::net::SocketAddr;
/// The resolver.
#[derive(Clone, Debug)]
pub struct Resolver;
/// Why a name has no address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("x")]
pub struct ResolveError;
impl Resolver {
    /// The addresses of `target`, at least one, the preferred first. A literal address costs nothing.
    ///
    /// # Errors
    /// [`ResolveError`] when the name has no address and never had one.
    pub async fn resolve(&self, _target: &TargetAddr) -> Result<Vec<SocketAddr>, ResolveError> {
        Err(ResolveError)
    }
}
