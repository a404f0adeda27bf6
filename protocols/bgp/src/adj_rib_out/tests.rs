use std::net::Ipv4Addr;

use super::*;
use crate::wire::{AsPath, Framer, Message, Update};

type Routes = BTreeMap<IpNet, RouteAttributes>;

fn codec() -> Codec {
    Codec {
        external: true,
        four_octet_as: true,
        families: BTreeSet::from([Family::Ipv4, Family::Ipv6]),
        ..Codec::before_open()
    }
}

fn rib() -> AdjRibOut {
    AdjRibOut::new(Origination { asn: 65001, external: true, only_to_customer: false }, codec())
}

fn route(med: u32) -> RouteAttributes {
    let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 1));
    RouteAttributes { med: Some(med), ..RouteAttributes::originated(next_hop) }
}

fn prefix(number: u32) -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::from(0xc000_0200 + number), 32))
}

fn routes(numbers: impl IntoIterator<Item = u32>, med: u32) -> Routes {
    numbers.into_iter().map(|number| (prefix(number), route(med))).collect()
}

/// All that is to be said, as one `Send` after the other.
fn drain(rib: &mut AdjRibOut) -> Vec<Batch> {
    let mut batches = Vec::new();
    loop {
        let mut batch = Batch::default();
        rib.fill(&mut batch);
        if batch.bytes.is_empty() {
            return batches;
        }
        assert!(batch.bytes.len() <= MAX_BATCH_LEN);
        batches.push(batch);
    }
}

fn updates(batches: &[Batch]) -> Vec<Update> {
    let mut framer = Framer::default();
    let mut updates = Vec::new();
    for batch in batches {
        framer.push(&batch.bytes);
        while let Some(frame) = framer.next_frame() {
            match Message::decode(&frame.unwrap(), &codec()).unwrap() {
                Message::Update(update) => updates.push(update),
                other => panic!("{other:?}"),
            }
        }
    }
    updates
}

/// What a peer that reads it all ends up with.
fn read(known: &mut BTreeMap<IpNet, Option<u32>>, batches: &[Batch]) {
    for update in updates(batches) {
        for prefix in &update.withdrawn {
            assert!(known.remove(prefix).is_some(), "{prefix} was withdrawn and never announced");
        }
        for prefix in update.reach.iter().flat_map(|reach| &reach.prefixes) {
            known.insert(*prefix, update.attributes.med);
        }
    }
}

/// RFC 4724 §2.
#[test]
fn an_empty_first_set_is_end_of_rib_alone_and_before_it_nothing_is_said() {
    let mut rib = rib();
    assert_eq!(drain(&mut rib), []);
    rib.want(Routes::new());
    let said: Vec<_> = updates(&drain(&mut rib)).into_iter().map(|update| update.end_of_rib).collect();
    assert_eq!(said, [Some(Family::Ipv4), Some(Family::Ipv6)]);
    rib.want(Routes::new());
    assert_eq!(drain(&mut rib), []);
}

#[test]
fn what_changes_back_before_it_was_sent_is_not_sent() {
    let mut rib = rib();
    rib.want(routes([1], 1));
    drain(&mut rib);
    rib.want(routes([1], 2));
    rib.want(routes([1, 2], 2));
    assert_eq!(rib.pending(), 2);
    rib.want(routes([1], 1));
    assert_eq!(rib.pending(), 0);
    assert_eq!(drain(&mut rib), []);
}

/// RFC 2918 §4.
#[test]
fn a_refresh_says_everything_of_its_family_once_more_also_when_the_wanted_set_comes_again() {
    let mut rib = rib();
    rib.want(routes(0..3, 1));
    drain(&mut rib);
    rib.refresh(Family::Ipv6, false);
    assert_eq!(rib.pending(), 0);
    rib.refresh(Family::Ipv4, false);
    rib.want(routes(0..2, 1));
    let batches = drain(&mut rib);
    assert_eq!(batches[0].withdrawn, [prefix(2)]);
    assert_eq!(batches[0].announced, [prefix(0), prefix(1)]);
    assert_eq!(drain(&mut rib), []);
}

#[test]
fn groups_of_equal_attributes_share_their_updates() {
    let mut rib = rib();
    let mut wanted = routes((0..400).step_by(2), 1);
    wanted.extend(routes((1..400).step_by(2), 2));
    rib.want(wanted);
    let batches = drain(&mut rib);
    assert_eq!(batches.len(), 1);
    // One for each MED, and two End-of-RIB.
    assert_eq!((batches[0].updates, updates(&batches).len()), (4, 4));
}

#[test]
fn every_batch_but_the_last_is_nearly_full() {
    let mut rib = rib();
    rib.want(routes(0..60_000, 1));
    let batches = drain(&mut rib);
    for batch in &batches[..batches.len() - 1] {
        assert!(batch.bytes.len() > MAX_BATCH_LEN - 4096, "{}", batch.bytes.len());
    }
    assert_eq!(batches.iter().map(|batch| batch.announced.len()).sum::<usize>(), 60_000);
}

#[test]
fn thousands_of_different_attributes_take_several_batches_and_lose_nothing() {
    let mut rib = rib();
    let wanted: Routes = (0..5000).map(|number| (prefix(number), route(number))).collect();
    rib.want(wanted.clone());
    let batches = drain(&mut rib);
    assert!(batches.len() > 2);
    let mut known = BTreeMap::new();
    read(&mut known, &batches);
    assert!(wanted.iter().all(|(prefix, route)| known[prefix] == route.med));
    assert_eq!(rib.advertised(), &wanted);
}

#[test]
fn a_route_too_large_to_send_is_not_tried_again_until_it_is_wanted_differently() {
    let mut rib = rib();
    rib.want(routes([1], 1));
    drain(&mut rib);
    let mut huge = routes([1], 1);
    huge.values_mut().for_each(|route| route.communities = (0..2000).map(crate::wire::Community).collect());
    rib.want(huge.clone());
    assert_eq!(drain(&mut rib)[0].withdrawn, [prefix(1)]);
    assert_eq!((rib.pending(), rib.advertised().len()), (0, 0));
    rib.want(huge);
    assert_eq!(drain(&mut rib), []);
    rib.want(routes([1], 1));
    assert_eq!(drain(&mut rib)[0].announced, [prefix(1)]);
}

/// RFC 4271 §4.3, §5.1.2.
#[test]
fn our_as_goes_in_front_as_often_as_asked_and_a_full_segment_gets_a_new_one_before_it() {
    let mut route = route(0);
    route.prepend = 2;
    let external = Origination { asn: 65001, external: true, only_to_customer: false }.attributes(&route);
    assert_eq!(external.as_path.to_string(), "65001 65001 65001");
    // RFC 9234 §5.
    let provider = Origination { asn: 65001, external: true, only_to_customer: true }.attributes(&route);
    assert_eq!((external.only_to_customer, provider.only_to_customer), (None, Some(65001)));
    let internal = Origination { asn: 65001, external: false, only_to_customer: false }.attributes(&route);
    assert_eq!(internal.as_path.to_string(), "65001 65001");
    route.as_path = AsPath::sequence([7; 254]);
    let path = Origination { asn: 65001, external: true, only_to_customer: false }.attributes(&route).as_path;
    assert_eq!(path.segments.iter().map(|segment| segment.asns.len()).collect::<Vec<_>>(), [2, 255]);
    route.as_path = "{7}".parse().unwrap();
    let path = Origination { asn: 65001, external: true, only_to_customer: false }.attributes(&route).as_path;
    assert_eq!(path.to_string(), "65001 65001 65001 {7}");
}

/// Any wishes, with sends at any moments between them: the peer ends with the last wish, and nothing is ever
/// withdrawn that was not announced.
#[test]
fn whatever_is_wanted_when_the_peer_ends_with_the_last_wish() {
    for number in 0..300 {
        let mut seed = anyvip_machine::Seed::new(number);
        let mut rib = rib();
        let mut known = BTreeMap::new();
        let mut wanted = Routes::new();
        for _ in 0..40 {
            match seed.below(4) {
                0 => rib.refresh(Family::Ipv4, false),
                1 => {
                    let mut batch = Batch::default();
                    rib.fill(&mut batch);
                    read(&mut known, &[batch]);
                }
                _ => {
                    let count = seed.below(8);
                    wanted = (0..count)
                        .map(|_| (prefix(seed.below(12) as u32), route(seed.below(3) as u32)))
                        .collect();
                    rib.want(wanted.clone());
                }
            }
        }
        read(&mut known, &drain(&mut rib));
        let wish: BTreeMap<_, _> = wanted.iter().map(|(prefix, route)| (*prefix, route.med)).collect();
        assert_eq!(known, wish, "seed {number}");
        assert_eq!(rib.advertised(), &wanted);
    }
}

/// RFC 7313 §4.
#[test]
fn a_refresh_is_marked_at_its_begin_and_end_where_agreed() {
    let mut rib = rib();
    let mut wanted = routes([1], 1);
    wanted.extend(routes([2], 2));
    rib.want(wanted);
    drain(&mut rib);
    rib.refresh(Family::Ipv4, true);
    let mut framer = Framer::default();
    for batch in drain(&mut rib) {
        framer.push(&batch.bytes);
    }
    let mut said = Vec::new();
    while let Some(frame) = framer.next_frame() {
        said.push(match Message::decode(&frame.unwrap(), &codec()).unwrap() {
            Message::RouteRefresh { subtype, .. } => format!("mark {subtype}"),
            Message::Update(update) => format!("{:?}", update.reach[0].prefixes),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(said, ["mark 1", "[192.0.2.1/32]", "[192.0.2.2/32]", "mark 2"]);
}
