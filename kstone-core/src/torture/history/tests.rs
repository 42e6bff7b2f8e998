use super::*;

fn change(n: u8) -> Change {
    let key = |k: u8| Key::new(vec![b'k', k]);
    vec![(key(n % 3), Some(vec![n])), (key(n % 2), None), (key(n % 2), Some(vec![n, n]))]
}

fn state(commits: impl IntoIterator<Item = u8>) -> State {
    let mut state = State::new();
    commits.into_iter().for_each(|n| apply(&mut state, &change(n)));
    state
}

fn allowed(history: &History, found: &State) -> [bool; 2] {
    [Least::Durable, Least::Acknowledged].map(|least| history.check(found, least).is_ok())
}

#[test]
fn what_survives_is_a_prefix_with_all_that_was_durable() {
    let mut history = History::default();
    history.created();
    for n in 0..6 {
        history.begin(change(n));
        history.acknowledge();
        if n == 2 {
            history.synced();
        }
    }
    assert_eq!(history.state(), &state(0..6));
    for n in 0..3 {
        assert_eq!(allowed(&history, &state(0..n)), [false, false], "{n}");
    }
    for n in 3..6 {
        assert_eq!(allowed(&history, &state(0..n)), [true, false], "{n}");
    }
    assert_eq!(allowed(&history, &state(0..6)), [true, true]);
    // One commit in the middle is missing.
    assert_eq!(allowed(&history, &state([0, 1, 2, 3, 5])), [false, false]);
}

#[test]
fn what_is_in_doubt_is_there_whole_or_not_at_all() {
    let mut history = History::default();
    history.created();
    history.begin(change(0));
    history.acknowledge();
    history.begin(change(2));
    for found in [state([0]), state([0, 2])] {
        assert_eq!(allowed(&history, &found), [true, true]);
    }
    let mut half = state([0]);
    apply(&mut half, &change(2)[..2].to_vec());
    assert_eq!(allowed(&history, &half), [false, false]);
    // With a second one: any subset of the two, in their order.
    history.begin(change(3));
    for found in [state([0]), state([0, 2]), state([0, 3]), state([0, 2, 3])] {
        assert_eq!(allowed(&history, &found), [true, true]);
    }
    assert_eq!(allowed(&history, &state([0, 3, 2])), [false, false]);
    // The second is acknowledged: the first must be gone.
    history.acknowledge();
    assert_eq!(allowed(&history, &state([0, 3])), [true, true]);
    assert_eq!(allowed(&history, &state([0, 2, 3])), [false, false]);
    history.begin(change(5));
    history.refuse();
    assert_eq!(allowed(&history, &state([0, 3, 5])), [false, false]);
}

#[test]
fn an_opened_state_is_where_all_begins_again() {
    let mut history = History::default();
    assert!(history.may_be_absent(Least::Durable));
    assert_eq!(allowed(&history, &State::new()), [true, true]);
    assert_eq!(allowed(&history, &state([1])), [false, false]);
    history.created();
    assert!(!history.may_be_absent(Least::Acknowledged));
    history.begin(change(7));
    history.restart(state([7]));
    assert_eq!(allowed(&history, &state([7])), [true, true]);
    assert_eq!(allowed(&history, &State::new()), [false, false]);
    assert!(history.doubts().is_empty());
}

#[test]
fn missing_and_empty_keys_and_values_are_told_apart() {
    let entries = [
        (Key::new(vec![b'a']), vec![]),
        (Key::with_sort(vec![b'a'], vec![]), vec![]),
        (Key::with_sort(vec![b'a'], vec![0]), vec![]),
        (Key::new(vec![b'a', 0]), vec![]),
        (Key::new(vec![b'a']), vec![0]),
    ];
    let prints: Vec<_> = entries.iter().map(|(key, value)| Fingerprint::of([(key, value)])).collect();
    for (at, print) in prints.iter().enumerate() {
        assert!(!prints[..at].contains(print), "{:?}", entries[at]);
    }
    assert_ne!(Fingerprint::of([]), prints[0]);
}
