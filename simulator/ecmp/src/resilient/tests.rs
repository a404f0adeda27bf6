use super::*;

const TICK: Duration = Duration::from_millis(4);

fn timers(idle: u64, unbalanced: u64) -> Timers {
    Timers { idle: Duration::from_secs(idle), unbalanced: Duration::from_secs(unbalanced), tick: TICK }
}

fn group(buckets: u16, members: u32, timers: Timers) -> Resilient {
    Resilient::new(Time::ZERO, buckets, &Member::equal(members), timers).unwrap()
}

fn table(group: &Resilient) -> Vec<u32> {
    group.buckets().iter().map(|bucket| bucket.member).collect()
}

fn use_all(group: &mut Resilient, now: Time) {
    for hash in 0..group.size() as u32 {
        group.pick(now, hash);
    }
}

#[test]
fn a_new_table_is_filled_from_the_last_member_on() {
    assert_eq!(table(&group(8, 3, timers(120, 0))), [2, 2, 2, 1, 1, 0, 0, 0]);
    let weighted = Resilient::new(Time::ZERO, 8, &Member::weighted(&[1, 3]), timers(120, 0)).unwrap();
    assert_eq!(table(&weighted), [1, 1, 1, 1, 1, 1, 0, 0]);
    assert!(weighted.balanced());
    assert_eq!(weighted.next_deadline(), None);
}

#[test]
fn buckets_of_a_leaver_move_at_once_however_busy_and_no_others_do() {
    let mut group = group(128, 8, timers(120, 0));
    use_all(&mut group, Time::from_secs(1));
    let before = table(&group);
    assert!(group.remove(Time::from_secs(1), 3));
    for (old, new) in before.iter().zip(table(&group)) {
        assert_ne!(new, 3);
        assert!(*old == 3 || *old == new);
    }
    assert!(group.balanced());
}

#[test]
fn a_newcomer_gets_nothing_while_all_buckets_are_busy() {
    let mut group = group(128, 8, timers(120, 0));
    use_all(&mut group, Time::from_secs(1));
    let before = table(&group);
    group.replace(Time::from_secs(2), &Member::equal(9), None).unwrap();
    assert_eq!(table(&group), before);
    assert!(!group.balanced());
    // The first idle one is looked for when it can be idle, a tick later.
    assert_eq!(group.next_deadline(), Some(Time::from_secs(121) + TICK));
    // Busy all the time: never.
    for second in 3..400 {
        group.advance(Time::from_secs(second));
        use_all(&mut group, Time::from_secs(second));
    }
    assert_eq!(table(&group), before);
    // Quiet at last.
    group.advance(Time::from_secs(530));
    assert!(group.balanced());
    assert_eq!(table(&group).iter().filter(|member| **member == 8).count(), 14);
}

#[test]
fn a_newcomer_gets_its_share_at_once_from_buckets_that_nobody_uses() {
    let mut group = group(128, 8, timers(120, 0));
    group.replace(Time::from_secs(1), &Member::equal(9), None).unwrap();
    assert!(group.balanced());
}

#[test]
fn busy_buckets_are_moved_when_the_table_was_unbalanced_for_too_long() {
    let mut group = group(128, 8, timers(60, 2));
    use_all(&mut group, Time::from_secs(1));
    group.replace(Time::from_secs(1), &Member::equal(9), None).unwrap();
    group.advance(Time::from_millis(2_990));
    assert!(!group.balanced());
    assert_eq!(group.next_deadline(), Some(Time::from_secs(3) + TICK));
    use_all(&mut group, Time::from_millis(2_999));
    group.advance(Time::from_millis(3_004));
    assert!(group.balanced());
}

#[test]
fn a_change_while_out_of_balance_does_not_start_the_clock_again() {
    let mut group = group(128, 8, timers(60, 2));
    use_all(&mut group, Time::from_secs(1));
    group.replace(Time::from_secs(1), &Member::equal(9), None).unwrap();
    group.replace(Time::from_secs(2), &Member::equal(10), None).unwrap();
    assert_eq!(group.next_deadline(), Some(Time::from_secs(3) + TICK));
}

#[test]
fn the_last_member_of_eight_finds_its_buckets_again_and_the_first_only_in_part() {
    for (leaver, share) in [(7, 100), (0, 75)] {
        let mut group = group(128, 8, timers(0, 0));
        let members = Member::equal(8);
        let before = table(&group);
        group.remove(Time::from_secs(1), leaver);
        group.replace(Time::from_secs(2), &members, None).unwrap();
        let same = before.iter().zip(table(&group)).filter(|(old, new)| *old == new).count();
        assert_eq!(same * 100 / 128, share, "member {leaver}");
    }
}

#[test]
fn what_is_used_in_the_tick_of_its_move_counts_as_unused() {
    let mut group = group(8, 2, timers(60, 0));
    use_all(&mut group, Time::from_millis(3));
    group.replace(Time::from_millis(10), &Member::equal(3), None).unwrap();
    assert!(group.balanced(), "used in the first tick");
    use_all(&mut group, Time::from_millis(20));
    group.replace(Time::from_millis(30), &Member::equal(4), None).unwrap();
    assert!(!group.balanced(), "used later");
}

#[test]
fn the_last_member_is_not_taken_out_and_bad_members_change_nothing() {
    let mut group = group(8, 1, timers(60, 0));
    let before = group.clone();
    assert!(!group.remove(Time::from_secs(1), 0));
    assert!(group.remove(Time::from_secs(1), 77), "no member");
    assert_eq!(group.replace(Time::from_secs(1), &[], None), Err(WeightError::Empty));
    let zero = [Member { id: 1, weight: 0 }];
    assert_eq!(group.replace(Time::from_secs(1), &zero, None), Err(WeightError::Zero { position: 0 }));
    assert_eq!(group, before);
}

#[test]
fn new_weights_move_buckets_of_those_who_have_too_many() {
    let mut group = group(100, 2, timers(0, 0));
    group.replace(Time::from_secs(1), &Member::weighted(&[1, 3]), None).unwrap();
    assert_eq!(table(&group).iter().filter(|member| **member == 0).count(), 25);
    assert!(group.balanced());
}
