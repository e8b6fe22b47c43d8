use super::*;

fn member(mode: &str, addresses: &[(&str, &str)]) -> Member {
    let addresses = addresses.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap()));
    Member { mode: mode.to_owned(), addresses: addresses.collect() }
}

fn found(container: &Member, portway: Option<&Member>, network: Option<&str>) -> Result<String, String> {
    let others = HashMap::from([
        ("app", member("bridge", &[("bridge", "172.17.0.9")])),
        ("loop", member("container:loop", &[])),
    ]);
    match home(container, &others, portway, network) {
        Home::At(ip) => Ok(ip.to_string()),
        Home::Unknown(why, _) => Err(why),
    }
}

#[test]
fn the_only_network_is_the_way() {
    assert_eq!(found(&member("bridge", &[("bridge", "172.17.0.2")]), None, None).unwrap(), "172.17.0.2");
    assert_eq!(found(&member("six", &[("six", "fd00::2")]), None, None).unwrap(), "fd00::2");
}

#[test]
fn several_networks_are_a_problem_that_names_them_and_one_can_be_named() {
    let both = member("a", &[("a", "172.18.0.2"), ("b", "172.19.0.2")]);
    assert_eq!(found(&both, None, None).unwrap_err(), "the container is in several networks: a, b");
    assert_eq!(found(&both, None, Some("b")).unwrap(), "172.19.0.2");
    let why = found(&both, None, Some("c")).unwrap_err();
    assert_eq!(why, "the container has no address in the network c; it is in a, b");
}

#[test]
fn portway_in_a_container_takes_the_network_that_both_are_in() {
    let both = member("a", &[("a", "172.18.0.2"), ("b", "172.19.0.2")]);
    let portway = member("b", &[("b", "172.19.0.9")]);
    assert_eq!(found(&both, Some(&portway), None).unwrap(), "172.19.0.2");
    let elsewhere = member("c", &[("c", "172.20.0.9")]);
    let why = found(&both, Some(&elsewhere), None).unwrap_err();
    assert_eq!(why, "the container and portway share no network: it is in a, b, portway in c");
}

#[test]
fn the_network_of_the_host_is_reached_by_loopback_from_the_host_alone() {
    let host = member("host", &[]);
    assert_eq!(found(&host, None, None).unwrap(), "127.0.0.1");
    let portway = member("b", &[("b", "172.19.0.9")]);
    assert!(found(&host, Some(&portway), None).unwrap_err().contains("on the network of the host"));
}

#[test]
fn a_container_in_the_network_of_another_is_where_that_one_is() {
    assert_eq!(found(&member("container:app", &[]), None, None).unwrap(), "172.17.0.9");
    for gone in ["container:gone", "container:loop"] {
        assert!(found(&member(gone, &[]), None, None).unwrap_err().contains("does not run"), "{gone}");
    }
}

#[test]
fn a_container_without_a_network_is_nowhere() {
    for network in [None, Some("a")] {
        let why = found(&member("none", &[]), None, network).unwrap_err();
        assert_eq!(why, "the container has no address in any network");
    }
}
