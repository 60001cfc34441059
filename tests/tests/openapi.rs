//! The API document: what is checked in is what the code says, and it is true of what
//! deploys. That replies are as it says is checked wherever a test asks for one.

use std::collections::BTreeSet;

use local::Template;
use serde_json::{Value, json};
use tests::http::Call;
use tests::openapi::{Document, rendered};
use tests::{Failed, Here, Result, Setup, fail, root};

#[test]
fn the_document_is_the_one_that_the_code_describes() -> Result<()> {
    let there = std::fs::read_to_string(root().join("docs/openapi.json"))?;
    if there != rendered()? {
        return fail("docs/openapi.json is old: cargo run -p tests --bin openapi writes it anew");
    }
    Ok(())
}

#[test]
fn the_document_has_the_routes_that_deploy_and_no_others() -> Result<()> {
    let template = Template::load(&[]).map_err(Failed)?;
    let deployed: BTreeSet<_> = template.routes().into_iter().collect();
    let document = Document::shared()?;
    let described: BTreeSet<_> =
        document.operations().map(|(method, path)| (method, path.to_owned())).collect();
    assert_eq!(described, deployed);
    Ok(())
}

#[test]
fn every_example_is_as_its_schema_says() -> Result<()> {
    fn look(document: &Document, at: &Value, pointer: &str, seen: &mut usize) -> Result<()> {
        let Some(fields) = at.as_object() else { return Ok(()) };
        let several = fields.get("examples").and_then(Value::as_object).into_iter().flatten();
        let several = several.filter_map(|(_, example)| example.get("value"));
        if fields.contains_key("schema") {
            for example in fields.get("example").into_iter().chain(several) {
                document.valid(&format!("{pointer}/schema"), example)?;
                *seen += 1;
            }
        }
        for (name, field) in fields {
            let name = name.replace('~', "~0").replace('/', "~1");
            look(document, field, &format!("{pointer}/{name}"), seen)?;
        }
        Ok(())
    }
    let document = Document::shared()?;
    let mut seen = 0;
    look(document, &document.whole["paths"], "/paths", &mut seen)?;
    assert_eq!(seen, 11, "five replies with a body, and four bodies, of which one each has two");
    let problems = document.whole["components"]["examples"].as_object().into_iter().flatten();
    for (code, example) in problems {
        document.valid("/components/schemas/Problem", &example["value"])?;
        assert_eq!(example["value"]["code"], **code);
    }
    Ok(())
}

#[test]
fn the_published_examples_are_shown() -> Result<()> {
    let document = Document::shared()?;
    let backups = &document.whole["paths"]["/deployments/{deployment_id}/backups"];
    let json = |content: &Value| content["content"]["application/json"]["examples"].clone();
    let (items, creates) =
        (json(&backups["get"]["responses"]["200"]), json(&backups["post"]["requestBody"]));
    for page in ["reference", "guide"] {
        let published = |of: &str| -> Result<Value> {
            let file = root().join(format!("docs/published/{page}-{of}.json"));
            Ok(serde_json::from_str(&std::fs::read_to_string(file)?)?)
        };
        assert_eq!(items[page]["value"], json!([published("item")?]));
        assert_eq!(creates[page]["value"], published("create")?);
    }
    Ok(())
}

#[test]
fn ids_are_integers_of_64_bits() -> Result<()> {
    let document = Document::shared()?;
    for name in ["DeploymentId", "NodeId", "BackupId", "RestoreId"] {
        let pointer = format!("/components/schemas/{name}");
        assert_eq!(
            document.whole.pointer(&pointer).map(|id| &id["format"]),
            Some(&"uint64".into())
        );
        document.valid(&pointer, &u64::MAX.into())?;
        assert!(document.valid(&pointer, &0.into()).is_err(), "{name}");
        assert!(document.valid(&pointer, &1.5.into()).is_err(), "{name}");
    }
    Ok(())
}

#[test]
fn a_field_that_is_not_written_down_is_seen() -> Result<()> {
    let document = Document::shared()?;
    let list = "/paths/~1deployments~1{deployment_id}~1backups/get/responses/200";
    let list = format!("{list}/content/application~1json");
    let good = document.whole.pointer(&format!("{list}/examples/reference/value")).cloned();
    let good = good.unwrap_or_default();
    document.valid(&format!("{list}/schema"), &good)?;
    let mut more = good.clone();
    more[0]["more"] = true.into();
    assert!(document.valid(&format!("{list}/schema"), &more).is_err());
    let mut less = good;
    less[0].as_object_mut().map(|one| one.remove("remarks"));
    assert!(document.valid(&format!("{list}/schema"), &less).is_err());
    Ok(())
}

#[tokio::test]
async fn the_api_serves_it_to_anybody() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let reply = here.send(Call::new("GET", "/docs/openapi.json")).await?;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    assert_eq!(reply.text, std::fs::read_to_string(root().join("docs/openapi.json"))?);
    assert_eq!(here.send(Call::new("POST", "/docs/openapi.json")).await?.status, 405);
    here.stop().await;
    Ok(())
}
