//! Items that change safely: a registration, a counter, a transfer, and reading page by page.
//!
//! ```console
//! cargo run --release -p kstone-api --example safe_changes
//! ```

use kstone_api::{Condition, Database, Error, Item, Returning, Token, TransactWrite, Value, attr};

fn main() -> kstone_api::Result<()> {
    let db = Database::temporary()?;

    // A registration: the name is taken once, with the user it belongs to.
    for (user, name) in [("user#1", "ann"), ("user#2", "bob"), ("user#3", "ann")] {
        let write = TransactWrite::new()
            .put_if(format!("name#{name}"), Item::builder().string("user", user), Condition::item_absent())?
            .put(user, Item::builder().string("name", name).number("balance", 100))?;
        match db.transact_write(&write) {
            Ok(()) => println!("{user} is {name}"),
            Err(Error::TransactionCancelled { .. }) => println!("{user}: the name {name} is taken"),
            Err(error) => return Err(error),
        }
    }

    // A counter: four threads, no lock, no visit lost.
    std::thread::scope(|scope| {
        let visit = || (0..1000).try_for_each(|_| db.update("page").add("visits", 1).run().map(drop));
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(visit)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(visited) => visited,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let page = db.update("page").set("title", "Start").returning(Returning::New).run()?;
    println!("page: {}", page.unwrap_or_default());

    // A transfer: if the balance does not allow it, nothing changes.
    let pay = |from: &str, to: &str, amount: i64| {
        db.transaction(|tx| {
            let balance = |item: Option<Item>| item.and_then(|item| item.get("balance")?.as_i64());
            let (Some(mine), Some(theirs)) = (balance(tx.get(from)?), balance(tx.get(to)?)) else {
                return Ok(false);
            };
            if mine < amount {
                return Ok(false);
            }
            tx.put(from, Item::builder().number("balance", mine - amount))?;
            tx.put(to, Item::builder().number("balance", theirs + amount))?;
            tx.put(("payments", format!("{from}>{to}")), Item::builder().number("amount", amount))?;
            Ok::<_, Error>(true)
        })
    };
    println!("paid: {}, {}", pay("user#1", "user#2", 70)?, pay("user#1", "user#2", 70)?);

    // Reading page by page: a token is text, and continues also after a restart.
    for n in 0..10 {
        db.put(("log", format!("{n:04}")), Item::builder().number("n", n))?;
    }
    let mut token: Option<Token> = None;
    loop {
        let query = db.query("log").filter(attr("n").ge(3)).limit(3);
        let page = match &token {
            Some(token) => query.after(token).page()?,
            None => query.page()?,
        };
        let numbers = page.items.iter().filter_map(|(_, item)| item.get("n").and_then(Value::as_i64));
        println!("page of {:?}", numbers.collect::<Vec<_>>());
        token = page.next;
        if token.is_none() {
            return Ok(());
        }
    }
}
