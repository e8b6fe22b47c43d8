//! A machine that a magic packet wakes.
//!
//! The packet goes to every network of this machine, a few times, as nothing answers it. Nothing
//! stops a machine.

use std::time::Duration;

use tokio::time::sleep;

use crate::sock::broadcast;

/// Where such packets go by custom: discard.
const PORT: u16 = 9;
/// How often it is sent.
const TIMES: u32 = 3;
/// The pause between.
const PAUSE: Duration = Duration::from_millis(250);
/// How often the address stands in a packet, behind six bytes of ones.
const REPEATS: usize = 16;

/// Wakes the machine.
pub(super) async fn start(mac: [u8; 6]) -> Result<(), String> {
    start_on(mac, PORT).await
}

async fn start_on(mac: [u8; 6], port: u16) -> Result<(), String> {
    let packet = packet(mac);
    for time in 0..TIMES {
        if time > 0 {
            sleep(PAUSE).await;
        }
        let sent = broadcast::send_everywhere(&packet, port);
        let networks = sent.map_err(|error| {
            format!("no network takes the magic packet ({error}): it goes to networks of this machine only")
        })?;
        tracing::debug!(networks, "magic packet sent");
    }
    Ok(())
}

fn packet(mac: [u8; 6]) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    packet.extend(mac.repeat(REPEATS));
    packet
}
