//! `/v1/events`: what happens, as server-sent events.
//!
//! Each event has its number as `id`. A client that comes back says which one it had last, by
//! `Last-Event-ID` or `after`, and gets the known ones behind it. A client that is too slow for the
//! channel is told how many events it lost, by an event `lost`. A heartbeat says every [`BEAT`]
//! that the daemon lives. With `follow=false`, the stream ends behind the known events.
//!
//! A stream ends with its door, and when the tokens change: the client has to show its token again.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse as _, Response,
        sse::{Event as Frame, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{
        context::Context,
        entrance::Entrance,
        failure::{Answer, Refused},
        input::{Params, wrong_param},
    },
    events::Event,
    mapping::MappingName,
    status::view,
};

/// How often an idle stream has a sign of life.
const BEAT: Duration = Duration::from_secs(15);
/// When a browser connects again.
const RETRY: Duration = Duration::from_secs(2);

pub(super) async fn events(
    State(context): State<Arc<Context>>,
    Extension(entrance): Extension<Entrance>,
    headers: HeaderMap,
    params: Params,
) -> Answer<Response> {
    let [mapping, after, follow] = params.take(["mapping", "after", "follow"])?;
    let follow = match follow.as_deref() {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(wrong_param("follow", "not a choice", "it may be true or false")),
    };
    let mapping = mapping.map(|name| {
        MappingName::new(&name)
            .map_err(|error| wrong_param("mapping", error.to_string(), "use a mapping's name"))
    });
    let number = |text: &str| text.parse::<u64>().ok();
    let after = match after {
        Some(text) => Some(number(&text).ok_or_else(|| {
            wrong_param(
                "after",
                "not the number of an event",
                "use the `id` of one, or 0 for all that are known",
            )
        })?),
        // A browser sends what it got. A number that is not one is not of this daemon.
        None => headers.get("last-event-id").map(|id| id.to_str().ok().and_then(number).unwrap_or(0)),
    };
    let subscription = context.means.events.subscribe(after).ok_or_else(|| {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon keeps no events while it starts or ends")
    })?;
    let frames = Reader {
        recent: subscription.recent.into(),
        lost: subscription.lost,
        next: subscription.next,
        mapping: mapping.transpose()?,
        follow,
        has_begun: false,
        closing: entrance.closing,
        revoked: context.auth.revoked(),
    }
    .frames();
    Ok(Sse::new(frames).keep_alive(KeepAlive::new().interval(BEAT)).into_response())
}

/// Reads one subscription.
struct Reader {
    recent: VecDeque<Arc<Event>>,
    /// Lost events that the client does not know of yet.
    lost: u64,
    next: Receiver<Arc<Event>>,
    mapping: Option<MappingName>,
    /// Whether the stream goes on behind the known events.
    follow: bool,
    has_begun: bool,
    closing: CancellationToken,
    revoked: CancellationToken,
}

impl Reader {
    fn frames(self) -> impl Stream<Item = Result<Frame, Infallible>> {
        stream::unfold(self, |mut reader| async move {
            let frame = reader.frame().await?;
            Some((Ok(frame), reader))
        })
    }

    /// The next event, or how many were lost; `None` at the end. What is known when the door closes
    /// still comes: the last event is that the daemon stops.
    async fn received(&mut self) -> Option<Result<Arc<Event>, u64>> {
        tokio::select! {
            biased;
            () = self.revoked.cancelled() => None,
            received = self.next.recv() => match received {
                Ok(event) => Some(Ok(event)),
                Err(RecvError::Lagged(count)) => Some(Err(count)),
                Err(RecvError::Closed) => None,
            },
            () = self.closing.cancelled() => None,
        }
    }

    /// The next frame; `None` at the end.
    async fn frame(&mut self) -> Option<Frame> {
        if !std::mem::replace(&mut self.has_begun, true) {
            // The client sees at once that the stream is there.
            return Some(Frame::default().retry(RETRY).comment("portway"));
        }
        loop {
            let lost = std::mem::take(&mut self.lost);
            if lost > 0 {
                return Some(Frame::default().event("lost").data(lost.to_string()));
            }
            let event = match self.recent.pop_front() {
                Some(event) => event,
                None if !self.follow => return None,
                None => match self.received().await? {
                    Ok(event) => event,
                    Err(lost) => {
                        self.lost = lost;
                        continue;
                    }
                },
            };
            if self.mapping.is_none() || self.mapping == event.mapping {
                return Some(frame(&event));
            }
        }
    }
}

fn frame(event: &Event) -> Frame {
    // An event is plain values: this cannot fail.
    let json = serde_json::to_string(&view::Event::from(event)).unwrap_or_default();
    Frame::default().id(event.id.to_string()).data(json)
}
