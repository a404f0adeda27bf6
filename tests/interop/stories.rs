//! What must happen with any upstream router. Three hosts share an IPv4 and an IPv6 service address.

use anyvip_tests::{
    Agent, Bird, Fabric, Frr, LONG, Lab, Namespace, Service, VIP4, VIP6, binaries, wait_until,
};

/// A router that the stories can be told with.
pub(crate) trait Upstream: Sized {
    fn start(lab: &Lab, namespace: &Namespace) -> Self;
    fn stop(&mut self);
}

impl Upstream for Bird {
    fn start(lab: &Lab, namespace: &Namespace) -> Self {
        Bird::start(lab, namespace)
    }
    fn stop(&mut self) {
        Bird::stop(self);
    }
}

impl Upstream for Frr {
    fn start(lab: &Lab, namespace: &Namespace) -> Self {
        Frr::start(lab, namespace)
    }
    fn stop(&mut self) {
        Frr::stop(self);
    }
}

/// Three healthy hosts, all in the router's table. Fields drop in this order: the programs before their namespaces.
struct Network<R> {
    agents: Vec<Agent>,
    services: Vec<Service>,
    router: R,
    fabric: Fabric,
}

impl<R: Upstream> Network<R> {
    fn new() -> Self {
        Network::with(anyvip_tests::agent_config)
    }

    fn with(config: impl Fn(usize) -> String) -> Self {
        let fabric = Fabric::new(binaries!(), 3);
        let router = R::start(&fabric.lab, &fabric.router);
        let services = (1..=3).map(|n| fabric.service(n)).collect();
        let agents = (1..=3).map(|n| fabric.agent_with(n, &config(n))).collect();
        let network = Network { agents, services, router, fabric };
        network.wait_table(&[1, 2, 3]);
        network
    }

    /// Waits until both service addresses lead to exactly these hosts in the router's kernel.
    #[track_caller]
    fn wait_table(&self, hosts: &[usize]) {
        let four: Vec<String> = hosts.iter().map(|n| format!("10.1.{n}.2")).collect();
        let six: Vec<String> = hosts.iter().map(|n| format!("fd00:1:{n}::2")).collect();
        wait_until(LONG, || {
            let seen = (self.fabric.router.next_hops(VIP4), self.fabric.router.next_hops(VIP6));
            if seen == (four.clone(), six.clone()) {
                return Ok(());
            }
            Err(format!("the router's kernel has {seen:?}, wanted {four:?} and {six:?}"))
        });
    }

    /// What host N's agent says it has told the router.
    #[track_caller]
    fn wait_withheld(&self, n: usize, reason: &str) {
        for address in [VIP4, VIP6] {
            self.agents[n - 1].wait_reason(address, reason);
        }
    }
}

pub(crate) fn three_hosts_share_both_addresses<R: Upstream>() {
    let network = Network::<R>::new();
    let fabric = &network.fabric;
    for address in [VIP4, VIP6] {
        let mut answered: Vec<String> =
            (0..64).filter_map(|_| fabric.answer(&fabric.client, address)).collect();
        assert_eq!(answered.len(), 64, "every client of {address} is answered");
        answered.sort();
        answered.dedup();
        assert_eq!(answered, ["h1", "h2", "h3"], "{address} is spread over all three");
    }
}

pub(crate) fn a_killed_service_leaves_and_comes_back<R: Upstream>() {
    let mut network = Network::<R>::new();
    network.services[1].process.kill();
    network.wait_table(&[1, 3]);
    network.wait_withheld(2, "Unhealthy");
    network.services[1] = network.fabric.service(2);
    network.wait_table(&[1, 2, 3]);
}

pub(crate) fn a_drained_host_leaves_while_its_service_answers_on<R: Upstream>() {
    let network = Network::<R>::new();
    network.agents[0].run("drain", &["web", "--reason", "kernel upgrade"]);
    network.wait_table(&[2, 3]);
    network.wait_withheld(1, "Drained");
    let fabric = &network.fabric;
    for address in [VIP4, VIP6] {
        // Old flows still reach it: the address stays.
        assert_eq!(fabric.answer(fabric.host(1), address).as_deref(), Some("h1"), "{address}");
    }
    let status = network.agents[0].status();
    assert_eq!(status["services"][0]["health"], "up", "a drained service is still checked");
    network.agents[0].run("undrain", &["web"]);
    network.wait_table(&[1, 2, 3]);
}

pub(crate) fn a_killed_agent_leaves_and_its_next_life_comes_back<R: Upstream>() {
    let mut network = Network::<R>::new();
    network.agents[2].kill();
    network.wait_table(&[1, 2]);
    let fabric = &network.fabric;
    let files = network.agents[2].files.clone();
    network.agents[2] = Agent::start(&fabric.lab, fabric.host(3), files);
    network.wait_table(&[1, 2, 3]);
}

pub(crate) fn a_restarted_router_learns_everything_again<R: Upstream>() {
    let mut network = Network::<R>::new();
    network.router.stop();
    network.wait_table(&[]);
    for agent in &network.agents {
        agent.wait_status("no session left", |status| status["peers"][0]["state"] != "Established");
    }
    network.router = R::start(&network.fabric.lab, &network.fabric.router);
    network.wait_table(&[1, 2, 3]);
}

pub(crate) fn a_session_over_ipv6_carries_both_families<R: Upstream>() {
    let network = Network::<R>::with(|n| {
        let own = format!("address = \"10.1.{n}.1\"");
        anyvip_tests::agent_config(n).replace(&own, &format!("address = \"fd00:1:{n}::1\""))
    });
    let status = network.agents[0].status();
    assert_eq!(status["peers"][0]["families"], serde_json::json!(["ipv4", "ipv6"]));
}
