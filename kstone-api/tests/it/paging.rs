//! Pages, tokens and counts.

use kstone_api::{
    Database, Error, Item, ItemBuilder, Key, Page, Query, Scan, Token, WriteBatch, WriteOptions,
};

mod model;
mod ranges;

fn numbered(n: i64) -> Item {
    ItemBuilder::new().number("n", n).build()
}

fn keys(page: &Page) -> Vec<Key<'static>> {
    page.keys().cloned().collect()
}

/// All pages of a read, one after the other, and how many there were.
fn pages(mut read: impl FnMut(Option<&Token>) -> Page) -> (Vec<(Key<'static>, Item)>, usize) {
    let (mut items, mut next, mut count) = (Vec::new(), None::<Token>, 0);
    loop {
        let page = read(next.as_ref());
        count += 1;
        // As a client would keep it.
        next = page.next.as_ref().map(|token| token.to_string().parse().unwrap());
        assert_eq!(next, page.next);
        items.extend(page);
        if next.is_none() {
            return (items, count);
        }
    }
}

fn query_page(query: Query<'_>, after: Option<&Token>) -> Page {
    if let Some(token) = after { query.after(token) } else { query }.page().unwrap()
}

fn scan_page(scan: Scan<'_>, after: Option<&Token>) -> Page {
    if let Some(token) = after { scan.after(token) } else { scan }.page().unwrap()
}

/// Items of several partitions, some in SSTs and some in memtables, with tombstones among them.
fn sample() -> Database {
    let db = Database::in_memory().unwrap();
    for n in 0..12 {
        db.put(("p", format!("{n:02}")), numbered(n)).unwrap();
        db.put(("p", format!("{n:02}x")), numbered(-1)).unwrap();
        db.put((format!("q{n}"), "s"), numbered(n)).unwrap();
    }
    db.put("p", numbered(100)).unwrap();
    db.put("p\0", numbered(101)).unwrap();
    db.flush().unwrap();
    for n in 0..12 {
        db.delete(("p", format!("{n:02}x"))).unwrap();
    }
    db.put(("p", "05"), numbered(5)).unwrap();
    db
}

#[test]
fn pages_of_every_size_are_the_whole() {
    let db = sample();
    let snapshot = db.snapshot().unwrap();
    for n in 0..50 {
        // Nothing that the snapshot sees.
        db.put(("p", format!("later/{n}")), numbered(n)).unwrap();
    }
    db.delete(("p", "07")).unwrap();
    for reverse in [false, true] {
        let query = || if reverse { snapshot.query("p").reverse() } else { snapshot.query("p") };
        let scan = || if reverse { snapshot.scan().reverse() } else { snapshot.scan() };
        let whole: Vec<_> = query().run().unwrap().map(Result::unwrap).collect();
        assert_eq!(whole.len(), 13);
        for size in 1..=whole.len() + 1 {
            let (items, count) = pages(|after| query_page(query().limit(size), after));
            assert_eq!(items, whole);
            // A full last page is known to be the last.
            assert_eq!(count, whole.len().div_ceil(size));
            let (items, count) = pages(|after| query_page(query().examine(size), after));
            assert_eq!((items.len(), count), (13, whole.len().div_ceil(size)));
        }
        let whole: Vec<_> = scan().run().unwrap().map(Result::unwrap).collect();
        assert_eq!(whole.len(), 26);
        for size in 1..=whole.len() + 1 {
            let (items, count) = pages(|after| scan_page(scan().limit(size), after));
            assert_eq!(items, whole);
            assert_eq!(count, whole.len().div_ceil(size));
        }
        let (items, _) = pages(|after| scan_page(scan().prefix("q1").limit(2), after));
        assert_eq!(items.len(), 3);
    }
}

#[test]
fn a_page_counts_and_a_limit_of_nothing_is_refused() {
    let db = sample();
    let page = db.query("p").limit(5).examine(3).page().unwrap();
    assert_eq!((page.items.len(), page.examined, page.is_last()), (3, 3, false));
    let page = db.query("p").page().unwrap();
    assert_eq!((page.items.len(), page.examined, page.is_last()), (13, 13, true));
    let page = db.query("nowhere").limit(1).page().unwrap();
    assert_eq!((page.items.len(), page.examined, page.next), (0, 0, None));
    for page in [db.query("p").limit(0).page(), db.scan().limit(0).page()] {
        assert!(matches!(page, Err(Error::InvalidConfig { field: "limit", .. })));
    }
    for page in [db.query("p").examine(0).page(), db.scan().examine(0).page()] {
        assert!(matches!(page, Err(Error::InvalidConfig { field: "examine", .. })));
    }
    assert!(db.query("p").limit(0).run().unwrap().next().is_none());
    assert!(db.scan().examine(0).run().unwrap().next().is_none());
    assert_eq!(db.query("p").count().unwrap(), 13);
    assert_eq!(db.scan().count().unwrap(), 26);
    assert_eq!(db.query("p").limit(0).count().unwrap(), 0);
    assert_eq!(db.query("p").limit(4).count().unwrap(), 4);
    assert_eq!(db.scan().examine(7).limit(9).count().unwrap(), 7);
    assert_eq!(db.query("p").sort_prefix("0").reverse().count().unwrap(), 10);
    assert_eq!(db.query("").count().unwrap_err().code(), "invalid_key");
}

#[test]
fn iterators_tell_where_they_are() {
    let db = sample();
    let mut items = db.query("p").limit(3).run().unwrap();
    assert_eq!(items.token(), None);
    for sort in [None, Some("00"), Some("01")] {
        let (key, _) = items.next().unwrap().unwrap();
        assert_eq!(key.sort(), sort.map(str::as_bytes));
        let rest = db.query("p").after(&items.token().unwrap()).run().unwrap();
        assert!(rest.map(Result::unwrap).all(|(other, _)| other > key));
    }
    let token = items.token();
    assert!(items.next().is_none());
    assert_eq!(items.token(), token, "the limit was reached, not the end");
    assert_eq!(db.query("p").after(&token.unwrap()).count().unwrap(), 10);

    // All ways to iterate are at the same position.
    let mut rows = db.scan().reverse().run().unwrap();
    let mut views = db.scan().reverse().run().unwrap().views();
    let mut keys = db.scan().reverse().run().unwrap().keys();
    while let Some((key, _)) = rows.next_row().unwrap() {
        let key = key.into_owned();
        assert_eq!(views.next().unwrap().unwrap().0, key);
        assert_eq!(keys.next().unwrap().unwrap(), key);
        assert!(rows.token().is_some());
        assert_eq!((views.token(), keys.token()), (rows.token(), rows.token()));
    }
    assert_eq!(rows.token(), None, "the end was reached");
    // A read of several stripes is in no order that a token could continue.
    let mut share = db.segment(0, 1).unwrap();
    assert!(share.next().is_some());
    assert_eq!(share.token(), None);
}

/// A token after an item that cannot be read would silently skip it.
#[test]
fn there_is_no_token_after_an_item_that_cannot_be_decoded() {
    let db = Database::in_memory().unwrap();
    db.put(("p", "1"), numbered(1)).unwrap();
    db.engine().put(&Key::with_sort("p", "2"), b"not an item", WriteOptions::new()).unwrap();
    db.put(("p", "3"), numbered(3)).unwrap();
    // The page before the damage is good, and says that there is more.
    let first = db.query("p").limit(1).page().unwrap();
    let token = first.next.unwrap();
    assert!(matches!(db.query("p").after(&token).limit(1).page(), Err(Error::Corruption { .. })));
    let mut items = db.query("p").run().unwrap();
    assert!(items.next().unwrap().is_ok() && items.token().is_some());
    assert!(items.next().unwrap().is_err() && items.token().is_none());
    let mut rows = db.query("p").run().unwrap();
    rows.next_row().unwrap();
    assert!(rows.next_row().is_err() && rows.token().is_none());
    // Counting does not read items.
    assert_eq!(db.query("p").count().unwrap(), 3);
}

#[test]
fn tokens_stay_valid_after_a_reopen_and_when_their_item_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.keystone");
    let db = Database::create(&path).unwrap();
    for n in 0..20 {
        db.put(("p", format!("{n:02}")), numbered(n)).unwrap();
    }
    let forward = db.query("p").limit(10).page().unwrap().next.unwrap().to_string();
    let reverse = db.query("p").reverse().limit(5).page().unwrap().next.unwrap().to_string();
    let scan = db.scan().limit(10).page().unwrap().next.unwrap().to_string();
    db.delete(("p", "09")).unwrap();
    db.delete(("p", "15")).unwrap();
    db.close().unwrap();

    let check = |db: &Database| {
        let rest = db.query("p").after(&forward.parse().unwrap()).page().unwrap();
        assert_eq!(keys(&rest).first(), Some(&Key::with_sort("p", "10")));
        assert_eq!(db.scan().after(&scan.parse().unwrap()).page().unwrap(), rest);
        let rest = db.query("p").reverse().after(&reverse.parse().unwrap()).page().unwrap();
        assert_eq!(keys(&rest).first(), Some(&Key::with_sort("p", "14")));
        assert_eq!(
            db.snapshot().unwrap().query("p").reverse().after(&reverse.parse().unwrap()).count().unwrap(),
            14
        );
        assert_eq!(db.partitions().unwrap().count(), 1);
    };
    check(&Database::open_read_only(&path).unwrap());
    let db = Database::open(&path).unwrap();
    check(&db);
    db.flush().unwrap();
    db.compact_all().unwrap();
    check(&db);
}

#[test]
fn a_token_of_another_query_is_refused() {
    let db = sample();
    let token = db.query("p").sort_from("02").limit(1).page().unwrap().next.unwrap();
    let refused = |result: Result<u64, Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::InvalidToken { .. }), "{error}");
        error.to_string()
    };
    let query = |partition: &str| db.query(partition).after(&token);
    assert!(query("p").sort_from("02").count().is_ok());
    // Other limits are no other query.
    assert!(query("p").sort_from("02").limit(1).examine(7).page().is_ok());
    assert!(refused(query("p").sort_from("02").reverse().count()).contains("other direction"));
    for other in [
        query("q").sort_from("02"),
        query("p"),
        query("p").sort_from("03"),
        query("p").sort_after("02"),
        query("p").sort_from("02").sort_to("99"),
        query("p").sort_prefix("02"),
        query("p").sort_from("02").sort_prefix("0"),
    ] {
        assert!(refused(other.count()).contains("another query"));
    }
    refused(db.scan().after(&token).count());
    refused(db.scan().prefix("p").after(&token).count());
    let token = db.scan().prefix("p").limit(1).page().unwrap().next.unwrap();
    refused(db.scan().after(&token).count());
    refused(db.scan().prefix("q").after(&token).count());
    refused(db.query("p").after(&token).count());
    assert!(db.scan().after(&token).partitions().is_err());
    assert!(db.scan().prefix("p").after(&token).page().is_ok());
}

#[test]
fn damaged_text_is_refused() {
    let db = sample();
    let text = db.query("p").limit(3).page().unwrap().next.unwrap().to_string();
    let refused = |text: &str| {
        assert!(matches!(text.parse::<Token>(), Err(Error::InvalidToken { .. })), "{text}");
    };
    for at in 0..text.len() {
        for other in ('!'..='~').filter(|&other| other != text.as_bytes()[at] as char) {
            refused(&format!("{}{other}{}", &text[..at], &text[at + 1..]));
        }
        refused(&text[..at]);
        refused(&text[at + 1..]);
        refused(&format!("{} {}", &text[..at], &text[at..]));
    }
    refused(&format!("{text}A"));
    refused(&format!("{text}="));
    refused(&format!("{text}\n"));
    refused("not a token");
    refused("ключ");
    refused(&"A".repeat(1 << 24));
    let code = "".parse::<Token>().unwrap_err();
    assert_eq!((code.code(), code.hint().is_some()), ("invalid_token", true));
}

/// Symptom it guards against: a page of a scan costs what all pages before it cost, as everything up to its position is
/// read and skipped.
#[test]
fn a_page_costs_no_more_for_lying_further_back() {
    let db = Database::in_memory().unwrap();
    for n in 0..2_000 {
        db.put((format!("user#{}", n % 100), format!("{n:04}")), numbered(n)).unwrap();
        db.put(("one", format!("{n:04}")), numbered(n)).unwrap();
    }
    db.flush().unwrap();
    let cost = |read: &dyn Fn() -> Page| {
        let before = db.stats().unwrap().operations;
        let page = read();
        let after = db.stats().unwrap().operations;
        let read = after.entries_read - before.entries_read + after.entries_passed - before.entries_passed;
        (page, read)
    };
    for reverse in [false, true] {
        let scan = || if reverse { db.scan().reverse() } else { db.scan() }.limit(10);
        let query = || if reverse { db.query("one").reverse() } else { db.query("one") }.limit(10);
        for n in [10, 1_990] {
            let at = |items: &mut kstone_api::Items| {
                assert_eq!(items.by_ref().take(n).count(), n);
                items.token().unwrap()
            };
            let token = at(&mut scan().limit(n).run().unwrap());
            let (page, read) = cost(&|| scan().after(&token).page().unwrap());
            assert_eq!((page.items.len(), read), (10, 11), "ten items, and a look at the next");
            let token = at(&mut query().limit(n).run().unwrap());
            let (page, read) = cost(&|| query().after(&token).page().unwrap());
            assert_eq!((page.items.len(), page.is_last(), read), (10, n == 1_990, 10 + u64::from(n == 10)));
        }
    }
}

/// Items that exist throughout are each on exactly one page, whatever is written between the pages.
#[test]
fn pages_beside_writes_miss_nothing_and_repeat_nothing() {
    let db = Database::in_memory().unwrap();
    let stays: Vec<String> = (0..200).map(|n| format!("{n:03}-stays")).collect();
    for sort in &stays {
        db.put(("p", sort), numbered(0)).unwrap();
    }
    let mut round = 0;
    let mut churn = || {
        round += 1;
        let mut batch = WriteBatch::new();
        for n in 0..40 {
            let n = (n * 13 + round * 7) % 200;
            batch.put(("p", format!("{n:03}-new-{}", round % 3)), numbered(round)).unwrap();
            batch.put(("p", &stays[n as usize]), numbered(round)).unwrap();
            batch.delete(("p", format!("{n:03}-new-{}", (round + 1) % 3))).unwrap();
        }
        db.write(batch).unwrap();
        match round % 11 {
            3 => db.flush().unwrap(),
            7 => db.compact_all().unwrap(),
            _ => {}
        }
    };
    for (size, reverse) in [(1, false), (3, true), (17, false), (17, true), (100, false)] {
        let (queried, count) = pages(|after| {
            churn();
            query_page(if reverse { db.query("p").reverse() } else { db.query("p") }.limit(size), after)
        });
        let (scanned, _) = pages(|after| {
            churn();
            scan_page(if reverse { db.scan().reverse() } else { db.scan() }.limit(size), after)
        });
        assert!(count > 2);
        for items in [queried, scanned] {
            let sorts: Vec<_> = items
                .iter()
                .map(|(key, _)| String::from_utf8(key.sort().unwrap().to_vec()).unwrap())
                .collect();
            assert!(
                sorts.is_sorted_by(|a, b| if reverse { a > b } else { a < b }),
                "each at most once, in order"
            );
            let mut found: Vec<_> = sorts.into_iter().filter(|sort| sort.ends_with("stays")).collect();
            found.sort();
            assert_eq!(found, stays);
        }
    }
}

#[test]
fn many_keys_are_read_as_of_one_moment() {
    let db = sample();
    let snapshot = db.snapshot().unwrap();
    db.delete(("p", "00")).unwrap();
    let keys: Vec<Key<'_>> =
        (0..1_000).map(|n| Key::with_sort("p", format!("{:02}", n % 20))).chain([Key::new("p")]).collect();
    for (found, least) in [(db.batch_get(&keys).unwrap(), 1), (snapshot.batch_get(&keys).unwrap(), 0)] {
        assert_eq!(found.len(), 1_001);
        for (n, item) in found.iter().take(1_000).enumerate() {
            assert_eq!(item.is_some(), (least..12).contains(&(n % 20)), "{n}");
        }
        assert_eq!(found.last(), Some(&Some(numbered(100))));
    }
    assert_eq!(db.batch_get([Key::new("p"), Key::new("")]).unwrap_err().code(), "invalid_key");
    assert_eq!(db.batch_get([""; 0]).unwrap(), []);
}
