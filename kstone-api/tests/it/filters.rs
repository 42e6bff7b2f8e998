//! Filters and projections of queries and scans.

use kstone_api::{
    Database, Error, Filter, Item, ItemBuilder, Items, Key, Params, Projection, Token, ValueView,
    WriteOptions, attr,
};

fn item(n: i64) -> Item {
    ItemBuilder::new().number("n", n).bool("even", n % 2 == 0).string("text", "x".repeat(50)).build()
}

/// Items 0 to 99 of one partition, some in an SST and some in a memtable.
fn numbers() -> Database {
    let db = Database::in_memory().unwrap();
    for n in 0..100 {
        db.put(("p", format!("{n:02}")), item(n)).unwrap();
        if n == 60 {
            db.flush().unwrap();
        }
    }
    db
}

fn even() -> Filter {
    attr("even").eq(true)
}

fn n(view: &kstone_api::ItemView<impl AsRef<[u8]>>) -> i64 {
    view.get("n").unwrap().and_then(ValueView::as_i64).unwrap()
}

#[test]
fn every_way_to_read_respects_a_filter() {
    let db = numbers();
    let snapshot = db.snapshot().unwrap();
    db.put(("p", "02"), item(3)).unwrap();
    let wanted: Vec<i64> = (0..100).filter(|n| n % 2 == 0 && *n >= 50).collect();
    for reverse in [false, true] {
        let mut wanted = wanted.clone();
        if reverse {
            wanted.reverse();
        }
        let sorts: Vec<_> = wanted.iter().map(|n| Key::with_sort("p", format!("{n:02}"))).collect();
        let high = || attr("n").ge(50);
        // Two filters are one with an AND.
        let query =
            || if reverse { snapshot.query("p").reverse() } else { snapshot.query("p") }.filter(even());
        let scan =
            || if reverse { snapshot.scan().reverse() } else { snapshot.scan() }.filter(even() & high());
        let queried = || query().filter(high()).run().unwrap();
        let scanned = || scan().run().unwrap();
        for run in [&queried as &dyn Fn() -> Items, &scanned] {
            let items: Vec<_> = run().map(Result::unwrap).collect();
            assert!(items.iter().map(|(key, _)| key).eq(&sorts));
            assert!(items.iter().zip(&wanted).all(|((_, found), n)| *found == item(*n)));
            assert!(run().views().map(|entry| n(&entry.unwrap().1)).eq(wanted.iter().copied()));
            assert!(run().keys().map(Result::unwrap).eq(sorts.iter().cloned()));
            let (mut rows, mut found) = (run(), Vec::new());
            while let Some((_, view)) = rows.next_row().unwrap() {
                found.push(n(&view));
            }
            assert_eq!(found, wanted);
        }
        assert_eq!(query().filter(high()).count().unwrap(), 25);
        assert_eq!(scan().count().unwrap(), 25);
        assert_eq!(scan().limit(7).count().unwrap(), 7);
        assert_eq!(scan().limit(0).count().unwrap(), 0);
        assert_eq!(query().limit(7).run().unwrap().keys().count(), 7);
    }
    assert_eq!(db.query("p").filter(even()).count().unwrap(), 49);
}

#[test]
fn examined_items_count_whether_or_not_they_pass() {
    let db = numbers();
    let query = |from: Option<&Token>| {
        let query = db.query("p").filter(attr("n").ge(97) | attr("n").eq(3));
        if let Some(token) = from { query.after(token) } else { query }
    };
    let page = query(None).examine(3).page().unwrap();
    assert_eq!(
        (page.items.len(), page.examined, page.is_last()),
        (0, 3, false),
        "none of the first three passes"
    );
    let page = query(page.next.as_ref()).examine(10).limit(1).page().unwrap();
    assert_eq!((page.items.len(), page.examined), (1, 1), "the limit was reached first");
    let page = query(page.next.as_ref()).examine(10).limit(1).page().unwrap();
    assert_eq!((page.items.len(), page.examined, page.is_last()), (0, 10, false));
    assert_eq!(query(page.next.as_ref()).count().unwrap(), 3);
    // The last item that passes is the last item: nothing is left. Of 99 the last does not pass, but may be looked at.
    let page = query(None).limit(4).page().unwrap();
    assert_eq!((page.items.len(), page.examined, page.next), (4, 100, None));
    let page = db.query("p").filter(even()).limit(50).page().unwrap();
    assert_eq!((page.items.len(), page.examined, page.is_last()), (50, 99, false));
    let page = db.query("p").filter(even()).after(&page.next.unwrap()).page().unwrap();
    assert_eq!((page.items.len(), page.examined, page.is_last()), (0, 1, true));
    assert_eq!(db.query("p").filter(even()).examine(0).count().unwrap(), 0);
    assert_eq!(db.query("p").filter(even()).examine(11).count().unwrap(), 6);

    // Pages of all sizes are the whole.
    for (limit, examine) in [(1, 1), (1, 7), (3, 2), (3, 100), (usize::MAX, 9), (26, usize::MAX)] {
        let (mut found, mut examined, mut next) = (Vec::new(), 0, None::<Token>);
        loop {
            let scan = db.scan().reverse().filter(even()).limit(limit).examine(examine);
            let scan = if let Some(token) = &next { scan.after(token) } else { scan };
            let (mut items, mut views, mut keys) = {
                let run = || scan.clone().run().unwrap();
                (run(), run().views(), run().keys())
            };
            let page = scan.page().unwrap();
            // Read one by one, they continue at the same place.
            let counts = (items.by_ref().count(), views.by_ref().count(), keys.by_ref().count());
            assert_eq!(counts, (page.items.len(), page.items.len(), page.items.len()));
            for following in [items.into_next(), views.into_next(), keys.into_next()] {
                assert_eq!(following, page.next);
            }
            assert!(page.items.len() <= limit && page.examined <= examine);
            found.extend(page.items);
            (examined, next) = (examined + page.examined, page.next);
            if next.is_none() {
                break;
            }
        }
        assert_eq!(examined, 100);
        assert!(found.into_iter().map(|(_, found)| found).eq((0..50).rev().map(|n| item(2 * n))));
    }
}

/// After a read with a filter has ended at its limit of looks, the token is after the last item looked at.
#[test]
fn an_iterator_with_a_filter_knows_where_it_is() {
    let db = numbers();
    let mut items = db.query("p").filter(attr("n").lt(2)).examine(10).run().unwrap();
    assert_eq!(items.by_ref().count(), 2);
    let rest = db.query("p").after(&items.token().unwrap()).run().unwrap().keys().next().unwrap().unwrap();
    assert_eq!(rest, Key::with_sort("p", "10"));
    let mut items = db.query("p").filter(attr("n").lt(2)).run().unwrap();
    items.next().unwrap().unwrap();
    let token = items.token().unwrap();
    assert_eq!(db.query("p").after(&token).count().unwrap(), 99);
    assert_eq!((items.count(), db.query("p").filter(even()).run().unwrap().token()), (1, None));
}

#[test]
fn a_projection_applies_to_items_alone() {
    let db = numbers();
    let only = || Projection::of(["n", "absent"]);
    let (_, found) = db.query("p").project(only()).run().unwrap().next().unwrap().unwrap();
    assert_eq!(found, ItemBuilder::new().number("n", 0).build());
    let page = db.scan().reverse().project(only()).filter(even()).limit(2).page().unwrap();
    let expected = [98, 96].map(|n| ItemBuilder::new().number("n", n).build());
    assert!(page.items.iter().map(|(_, found)| found).eq(&expected), "a filter sees what is not selected");
    let page = db.query("p").project(Projection::of(["absent"])).limit(1).page().unwrap();
    assert_eq!(page.items, [(Key::with_sort("p", "00"), Item::new())]);
    let mut items = db.query("p").project(only()).run().unwrap();
    assert_eq!(items.next_row().unwrap().unwrap().1.to_item().unwrap(), item(0));
    let (_, view) = items.views().next().unwrap().unwrap();
    assert_eq!(view.to_item().unwrap(), item(1));
    assert_eq!(db.query("p").project(only()).count().unwrap(), 100);
    // The last one counts.
    let query = db.query("p").project(only()).project(Projection::of(["even"]));
    assert_eq!(
        query.run().unwrap().next().unwrap().unwrap().1,
        ItemBuilder::new().bool("even", true).build()
    );
}

#[test]
fn what_was_refused_is_reported_before_anything_is_read() {
    let db = Database::in_memory().unwrap();
    let refused = || attr("n").lt(true);
    let overlapping = || Projection::of([attr("a"), attr("a").field("b")]);
    let invalid = |result: Result<u64, Error>| {
        assert!(matches!(result, Err(Error::InvalidExpression { .. })), "{result:?}");
    };
    invalid(db.query("p").filter(refused()).count());
    invalid(db.scan().filter(even()).filter(refused()).count());
    invalid(db.query("p").project(overlapping()).count());
    invalid(db.scan().project(overlapping()).page().map(|page| page.examined as u64));
    for scan in [db.scan().filter(even()), db.scan().project(Projection::of(["n"]))] {
        assert!(matches!(scan.partitions(), Err(Error::InvalidConfig { .. })));
    }
    // The text of DynamoDB is as good.
    let numbers = numbers();
    let filter = Filter::parse("n BETWEEN :a AND :b", &Params::new().value(":a", 3).value(":b", 5)).unwrap();
    assert_eq!(numbers.query("p").filter(filter).count().unwrap(), 3);
}

#[test]
fn a_filter_ends_at_an_item_that_cannot_be_read() {
    let db = Database::in_memory().unwrap();
    db.put(("p", "1"), item(1)).unwrap();
    db.engine().put(&Key::with_sort("p", "2"), b"not an item", WriteOptions::new()).unwrap();
    db.put(("p", "3"), item(2)).unwrap();
    let mut items = db.query("p").filter(even()).run().unwrap();
    let error = items.next().unwrap().unwrap_err();
    assert!(error.to_string().contains("the item under \"p\" \"2\""), "{error}");
    assert!(items.next().is_none() && items.token().is_none());
    assert!(matches!(db.query("p").filter(even()).count(), Err(Error::Corruption { .. })));
    assert!(matches!(db.query("p").filter(even()).page(), Err(Error::Corruption { .. })));
    assert_eq!(db.query("p").filter(even()).examine(1).page().unwrap().examined, 1);
}
