//! Runs whose stores do not answer, or are not there.

use std::fs;

use super::*;
use crate::store::{Names, Store};

/// What cannot be asked keeps nothing from being found: the home's own tag, then a run's name, then tags elsewhere.
#[tokio::test]
async fn a_store_that_does_not_answer_keeps_no_run_from_being_found() {
    let (folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let (calm, loud) = (start(&lineage, "calm-otter").await, start(&lineage, "loud-owl").await);
    let stores = ["own", "silent", "other"].map(|name| Store::open_local(&folder.path().join(name)).unwrap());
    for (store, run, names) in [(&stores[0], &calm, &["loud"][..]), (&stores[2], &loud, &["calm", "release"])] {
        store.put_run(run, &serde_json::json!({ "run": run })).await.unwrap();
        for name in names {
            store.tag(run, name).await.unwrap();
        }
    }
    let tags = folder.path().join("silent/tags");
    fs::remove_dir(&tags).unwrap();
    fs::write(&tags, "no folder").unwrap();
    for (text, expected) in [("loud", &calm), ("calm", &calm), ("calm-otter", &calm), ("release", &loud)] {
        assert_eq!(lineage.run_at(text, || Ok(stores.to_vec())).await.unwrap(), *expected, "{text}");
    }
    let missing = lineage.address("nosuch", || Ok(stores.to_vec())).await.unwrap_err();
    assert_eq!(missing.code, "lineage/run");
    assert!(missing.to_string().contains("silent does not answer"), "{missing}");
    assert!(lineage.address("@/sft", || panic!("a store is asked for nothing")).await.is_ok());
    let names = Names::of(&stores).await;
    assert_eq!((names.tags.len(), names.silent.as_slice()), (3, &[stores[1].url()][..]));
}

/// Looking at a run whose disk is not mounted makes nothing where that would be.
#[tokio::test]
async fn the_store_of_a_run_that_is_not_there_is_told_and_not_made_anew() {
    let (folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let disk = folder.path().join("disk");
    let file = PipelineRow { store: Some(format!("file://{}", disk.display())), ..file() };
    let run = start_of(&lineage, "far-otter", &file).await;
    for mounted in [false, true] {
        if mounted {
            fs::create_dir(&disk).unwrap(); // where it would be mounted
        }
        let gone = lineage.store_of(&run, &home).await.err().unwrap();
        assert_eq!((gone.code.as_str(), gone.message.contains("far-otter")), ("store/gone", true), "{gone}");
        assert!(lineage.store_of_newest(&home).await.is_err());
    }
    assert!(fs::read_dir(&disk).unwrap().next().is_none());
    Store::open_local(&disk).unwrap();
    assert!(lineage.store_of(&run, &home).await.is_ok());
}
