//! Openings by UPnP Internet Gateway Device, through the `igd-next` library.

use super::driver::{Ask, Entry, Found, Granted, Place, Pulse, RouterError};

/// A router that speaks UPnP.
#[derive(Debug)]
pub(super) struct Upnp {}

impl Upnp {
    pub(super) async fn search(_at: &Place) -> Result<(Self, Found), RouterError> {
        Err(RouterError::Lost("UPnP is not spoken yet".into()))
    }

    pub(super) async fn open(&self, _ask: &Ask) -> Result<Granted, RouterError> {
        Err(RouterError::Lost("UPnP is not spoken yet".into()))
    }

    pub(super) async fn look(&self, _ask: &Ask) -> Result<Entry, RouterError> {
        Ok(Entry::Unknown)
    }

    pub(super) async fn any_port(&self, ask: &Ask) -> Result<Granted, RouterError> {
        self.open(ask).await
    }

    pub(super) async fn close(&self, _ask: &Ask) -> Result<(), RouterError> {
        Ok(())
    }

    pub(super) async fn pulse(&self) -> Result<Pulse, RouterError> {
        Ok(Pulse::default())
    }

    pub(super) async fn still_there(&self) -> Result<Option<u32>, RouterError> {
        Ok(None)
    }
}
