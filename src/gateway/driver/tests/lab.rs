//! Every driver against a real router.

use super::{harness::RouterLab, *};

const LAN: Ipv4Addr = RouterLab::LAN;

/// Runs a test with a router, if there can be one.
fn with<const N: usize>(test: &str, settings: [(&str, &str); N], body: impl FnOnce(&mut RouterLab)) {
    if can_run(&format!("lab::{test}"), &RouterLab::TOOLS, true) {
        body(&mut RouterLab::up(settings));
    }
}

fn wan(port: u16) -> SocketAddr {
    (RouterLab::WAN, port).into()
}

/// Where the machine under test sees its router.
fn home(lab: &RouterLab) -> RouterAddr {
    let place = lab.inside("lan", || route::router_addr(None, None)).expect("the network is up");
    assert_eq!((place.gateway, place.own), (RouterLab::GATEWAY.into(), LAN.into()));
    place
}

/// Finds the router from the machine under test, and does something with it there.
#[track_caller]
fn found<T: Send>(
    lab: &RouterLab,
    via: RouterProtocol,
    body: impl AsyncFnOnce(Driver, Found) -> T + Send,
) -> T {
    let place = home(lab);
    lab.inside("lan", || {
        run(async {
            let searched = within(LONGEST_SEARCH, Driver::search(via, &place)).await;
            let (driver, found) = searched.expect("the router is found");
            assert_eq!((found.via, found.addr), (via, RouterLab::GATEWAY.into()));
            body(driver, found).await
        })
    })
}

#[test]
fn each_protocol_opens_what_the_internet_then_reaches() {
    with("each_protocol_opens_what_the_internet_then_reaches", [], |lab| {
        let _echo = lab.echo("lan", 8080);
        for via in [RouterProtocol::Upnp, RouterProtocol::Pcp, RouterProtocol::NatPmp] {
            let tcp = request((LAN, 8080), 9080);
            let udp = MapRequest { protocol: Protocol::Udp, ..request((LAN, 8080), 9081) };
            assert!(!lab.reaches_tcp("wan", wan(9080)));
            let driver = found(lab, via, async |driver, _| {
                for request in [&tcp, &udp] {
                    let granted = driver.open(request).await.expect("it opens");
                    assert_eq!(
                        (granted.external_port, granted.lease),
                        (request.external_port, request.lease),
                        "{via:?}"
                    );
                }
                let external = driver.health().await.map(|health| health.external);
                assert_eq!(external, Ok(Some(RouterLab::WAN.into())), "{via:?}");
                driver
            });
            assert!(lab.reaches_tcp("wan", wan(9080)), "{via:?}");
            assert!(lab.reaches_udp("wan", wan(9081)), "{via:?}");
            lab.inside("lan", || {
                run(async {
                    for request in [&tcp, &udp] {
                        let renewed = driver.open(request).await.expect("it renews");
                        assert_eq!(renewed.lease, request.lease, "{via:?}");
                        driver.close(request).await.expect("it closes");
                        driver.close(request).await.expect("one that is gone is fine");
                    }
                });
            });
            assert!(!lab.reaches_tcp("wan", wan(9080)), "{via:?}");
            assert!(!lab.reaches_udp("wan", wan(9081)), "{via:?}");
        }
    });
}

#[test]
fn upnp_tells_who_holds_a_port_and_what_is_denied() {
    with("upnp_tells_who_holds_a_port_and_what_is_denied", [], |lab| {
        let held = request((RouterLab::LAN2, 8080), 9082);
        let from_lan2 = RouterAddr { own: RouterLab::LAN2.into(), ..home(lab) };
        let other = lab.inside("lan2", || {
            run(async {
                let (driver, _) =
                    Driver::search(RouterProtocol::Upnp, &from_lan2).await.expect("it is found");
                driver.open(&held).await.expect("it opens");
                driver
            })
        });
        found(lab, RouterProtocol::Upnp, async |driver, found| {
            assert!(found.id.starts_with("uuid:") && !found.model.is_empty(), "{found:?}");
            let ours = request((LAN, 8080), 9082);
            assert_eq!(driver.look(&request((LAN, 8080), 9083)).await, Ok(Entry::Free));
            assert_eq!(driver.open(&ours).await, Err(RouterError::Conflict));
            match driver.look(&ours).await {
                Ok(Entry::Taken { holder, lease }) => {
                    let addr = (RouterLab::LAN2, 8080).into();
                    assert_eq!(holder, Holder { addr, text: held.text.clone() });
                    assert!(lease.is_some_and(|left| left > Duration::from_secs(500)), "{lease:?}");
                }
                other => panic!("{other:?}"),
            }
            // A router does not close another machine's opening.
            let closed = driver.close(&ours).await;
            assert!(matches!(closed, Err(RouterError::Denied(_))), "{closed:?}");
            let any = driver.any_port(&ours).await.expect("others are free");
            assert_ne!(any.external_port, ours.external_port);
            let there = MapRequest { external_port: any.external_port, ..ours.clone() };
            let looked = driver.look(&there).await;
            assert!(matches!(looked, Ok(Entry::Taken { holder, .. }) if holder.addr.ip() == LAN));
            driver.close(&there).await.expect("it closes");
            let low = driver.open(&request((LAN, 80), 80)).await;
            assert!(matches!(&low, Err(RouterError::Denied(text)) if text.contains("606")), "{low:?}");
        });
        for via in [RouterProtocol::Pcp, RouterProtocol::NatPmp] {
            found(lab, via, async |driver, _| {
                let opened = within(LONGEST_CALL, driver.open(&request((LAN, 8080), 9082))).await;
                assert_eq!(opened, Err(RouterError::Conflict), "{via:?}");
            });
        }
        let left = lab.run("rules");
        assert!(!left.contains("192.168.77.2"), "a port that was not asked for is given back:\n{left}");
        lab.inside("lan2", || run(other.close(&held))).expect("it closes");
    });
}

#[test]
fn a_pinhole_lets_the_internet_in_over_ipv6() {
    with("a_pinhole_lets_the_internet_in_over_ipv6", [], |lab| {
        let _echo = lab.echo("lan", 8084);
        let own: Ipv6Addr = "2001:db8:77::2".parse().expect("an address");
        let to = SocketAddr::from((own, 8084));
        let place = home(lab);
        assert_eq!(lab.inside("lan", || route::global_addresses(place.interface)), vec![own]);
        assert!(!lab.reaches_tcp("wan", to));
        let mut hole = request((own, 8084), 8084);
        let driver = found(lab, RouterProtocol::Upnp, async |driver, _| {
            let granted = within(LONGEST_CALL, driver.open(&hole)).await.expect("it opens");
            assert!(granted.pinhole.is_some());
            hole.pinhole = granted.pinhole;
            assert_eq!(driver.open(&hole).await, Ok(granted), "it renews");
            driver
        });
        assert!(lab.reaches_tcp("wan", to));
        lab.inside("lan", || {
            run(async {
                assert_eq!(driver.look(&hole).await, Ok(Entry::Unknown));
                driver.close(&hole).await.expect("it closes");
                driver.close(&hole).await.expect("one that is gone is fine");
                let again = driver.open(&hole).await.expect("one that is gone is opened again");
                driver
                    .close(&MapRequest { pinhole: again.pinhole, ..hole.clone() })
                    .await
                    .expect("it closes");
            });
        });
        assert!(!lab.reaches_tcp("wan", to));
    });
}

#[test]
fn pcp_opens_ipv6_at_the_routers_global_address() {
    with("pcp_opens_ipv6_at_the_routers_global_address", [], |lab| {
        let _echo = lab.echo("lan", 8084);
        let own: Ipv6Addr = "2001:db8:77::2".parse().expect("an address");
        let router: IpAddr = "2001:db8:77::1".parse().expect("an address");
        let to = SocketAddr::from((own, 8084));
        let hole = request((own, 8084), 8084);
        // The gateway of the default route may be known by its link-local address alone.
        let link_local = RouterAddr { gateway6: Some("fe80::1".parse().expect("an address")), ..home(lab) };
        let global =
            lab.inside("lan", || route::router_addr(Some((router, None)), None)).expect("a way to it");
        assert_eq!(global.own, own);
        let driver = lab.inside("lan", || {
            run(async {
                let (driver, _) =
                    Driver::search(RouterProtocol::Pcp, &link_local).await.expect("it is found");
                let opened = driver.open(&hole).await;
                assert!(matches!(opened, Err(RouterError::Failed(_))), "{opened:?}");
                let (driver, _) = Driver::search(RouterProtocol::Pcp, &global).await.expect("it is found");
                driver.open(&hole).await.expect("it opens");
                driver
            })
        });
        assert!(lab.reaches_tcp("wan", to));
        lab.inside("lan", || run(driver.close(&hole))).expect("it closes");
        assert!(!lab.reaches_tcp("wan", to));
    });
}

#[test]
fn an_address_beside_the_first_is_opened_too() {
    with("an_address_beside_the_first_is_opened_too", [], |lab| {
        lab.run("in lan ip addr add 192.168.77.50/24 dev eth0");
        let _echo = lab.echo("lan", 8080);
        let alias = request((Ipv4Addr::new(192, 168, 77, 50), 8080), 9080);
        found(lab, RouterProtocol::Upnp, async |driver, _| driver.open(&alias).await).expect("it opens");
        assert!(lab.reaches_tcp("wan", wan(9080)));
    });
}

#[test]
fn a_restart_of_the_router_shows() {
    with("a_restart_of_the_router_shows", [], |lab| {
        let web = request((LAN, 8080), 9080);
        let (upnp, first) = found(lab, RouterProtocol::Upnp, async |driver, _| {
            driver.open(&web).await.expect("it opens");
            let first = driver.still_there().await.expect("it is there");
            (driver, first)
        });
        assert!(first.is_some());
        lab.run("reboot");
        lab.inside("lan", || {
            run(async {
                let second = upnp.still_there().await.expect("it is there");
                assert!(second.is_some() && second != first, "{first:?}, then {second:?}");
                assert_eq!(upnp.look(&web).await, Ok(Entry::Free));
            });
        });
        lab.run_with("HTTP_PORT", "0", "daemon restart");
        lab.inside("lan", || {
            run(async {
                let opened = within(Duration::ZERO, upnp.open(&web)).await;
                assert!(matches!(opened, Err(RouterError::Lost(_))), "{opened:?}");
                let there = within(LONGEST_CALL, upnp.still_there()).await;
                assert!(matches!(there, Err(RouterError::Lost(_))), "{there:?}");
            });
        });
        found(lab, RouterProtocol::Upnp, async |driver, _| driver.open(&web).await).expect("it opens");
    });
}

#[test]
fn neither_vpn_nor_firewall_nor_a_second_router_hides_the_first() {
    with("neither_vpn_nor_firewall_nor_a_second_router_hides_the_first", [], |lab| {
        for obstacle in ["vpn on", "hostfw on", "second up"] {
            lab.run(obstacle);
            found(lab, RouterProtocol::Upnp, async |driver, _| {
                let health = driver.health().await.expect("it answers");
                assert_eq!(health.external, Some(RouterLab::WAN.into()), "{obstacle}");
            });
        }
        lab.run("vpn only");
        let none = lab.inside("lan", || route::router_addr(None, None));
        assert_eq!(none, Err(route::NoRoute::OnlyThrough("vpn0".into())));
        let named = lab.inside("lan", || route::router_addr(Some((RouterLab::GATEWAY.into(), None)), None));
        assert_eq!(named.map(|place| place.own), Ok(LAN.into()));
    });
}

#[test]
fn a_router_behind_another_one_has_a_pulse_and_opens_nothing() {
    with("a_router_behind_another_one_has_a_pulse_and_opens_nothing", [], |lab| {
        let upnp = found(lab, RouterProtocol::Upnp, async |driver, _| driver);
        lab.run("wanip 100.64.3.4");
        lab.inside("lan", || {
            run(async {
                let health = upnp.health().await.expect("it answers");
                let second_nat = Ipv4Addr::new(100, 64, 3, 4);
                assert!(health.external.is_none_or(|ip| ip == second_nat), "{health:?}");
                let opened = upnp.open(&request((LAN, 8080), 9080)).await;
                assert!(
                    matches!(&opened, Err(RouterError::Failed(text)) if text.contains("501")),
                    "{opened:?}"
                );
            });
        });
        lab.run("wanip 11.22.33.7");
        let health = lab.inside("lan", || run(upnp.health())).expect("it answers");
        assert_eq!(health.external, Some([11, 22, 33, 7].into()));
    });
}

#[test]
fn a_router_whose_cable_is_pulled_is_lost_in_time() {
    with("a_router_whose_cable_is_pulled_is_lost_in_time", [], |lab| {
        let upnp = found(lab, RouterProtocol::Upnp, async |driver, _| driver);
        let pcp = found(lab, RouterProtocol::Pcp, async |driver, _| driver);
        let web = request((LAN, 8080), 9080);
        lab.run("link down");
        lab.inside("lan", || {
            run(async {
                for driver in [&upnp, &pcp] {
                    let (opened, health) =
                        tokio::join!(within(CALL, driver.open(&web)), within(CALL, driver.health()));
                    assert!(matches!(opened, Err(RouterError::Lost(_))), "{opened:?}");
                    assert!(matches!(health, Err(RouterError::Lost(_))), "{health:?}");
                }
            });
        });
        lab.run("link up");
        found(lab, RouterProtocol::Upnp, async |driver, _| driver.open(&web).await).expect("it opens");
    });
}
