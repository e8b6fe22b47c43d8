//! What follows when every target of a listener is down.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_is_not_on_the_router_while_its_targets_are_down() {
    let dir = tempfile::tempdir().unwrap();
    let [at, other, behind] = [(); 3].map(|()| free_port());
    let text = format!(
        "[defaults]\nhealth = {{ interval = \"100ms\", timeout = \"90ms\", rise = 1, fall = 1 }}\n\
         [[mapping]]\npublish = \"0.0.0.0:{at}:127.0.0.1:{behind}\"\nrouter = {{ while_down = \"close\" }}\n\
         [[mapping]]\npublish = \"0.0.0.0:{other}:127.0.0.1:{behind}\"\nrouter = true\n"
    );
    let blocked = Blocked::start(&config(dir.path(), &text)).await;
    let mut live = blocked.handle.live();
    let mut count = async |expected| {
        timeout(PATIENCE, live.wait_for(|live| live.len() == expected)).await.unwrap().unwrap().len()
    };
    assert_eq!(count(1).await, 1, "one is withdrawn, the other stays");
    let target = TcpListener::bind(("127.0.0.1", behind)).await.unwrap();
    assert_eq!(count(2).await, 2);
    drop(target);
    assert_eq!(count(1).await, 1);
    blocked.handle.stop_at_once();
    blocked.handle.stop().await;
}
