//! EC2's Query protocol, answers.

use aws_smithy_xml::encode::{ScopeWriter, XmlWriter};

use super::Reply;
use crate::error::Ec2Error;

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
const CONTENT_TYPE: &str = "text/xml;charset=UTF-8";

/// An element with a text or with elements in it.
#[derive(Debug)]
pub(crate) enum Node {
    Text(&'static str, String),
    Elements(&'static str, Vec<Node>),
}

#[expect(clippy::needless_pass_by_value, reason = "numbers and flags come as they are")]
pub(crate) fn text(name: &'static str, value: impl ToString) -> Node {
    Node::Text(name, value.to_string())
}

pub(crate) fn elements(name: &'static str, inner: Vec<Node>) -> Node {
    Node::Elements(name, inner)
}

/// A list as EC2 writes it: `<nameSet><item>..</item>..</nameSet>`.
pub(crate) fn items(name: &'static str, items: impl IntoIterator<Item = Vec<Node>>) -> Node {
    Node::Elements(name, items.into_iter().map(|item| elements("item", item)).collect())
}

/// An operation's answer.
pub(crate) fn answer(operation: &str, request_id: &str, inner: &[Node]) -> Reply {
    let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let root = format!("{operation}Response");
    let mut writer = XmlWriter::new(&mut body);
    let mut scope = writer.start_el(&root).write_ns(NAMESPACE, None).finish();
    write(&mut scope, &text("requestId", request_id));
    for node in inner {
        write(&mut scope, node);
    }
    scope.finish();
    reply(200, request_id, body)
}

/// An error (X).
pub(crate) fn error(error: &Ec2Error, request_id: &str) -> Reply {
    let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let mut writer = XmlWriter::new(&mut body);
    let mut scope = writer.start_el("Response").finish();
    let inner = vec![text("Code", &error.code), text("Message", &error.message)];
    write(&mut scope, &elements("Errors", vec![elements("Error", inner)]));
    write(&mut scope, &text("RequestID", request_id));
    scope.finish();
    reply(error.status(), request_id, body)
}

fn write(scope: &mut ScopeWriter<'_, '_>, node: &Node) {
    match node {
        Node::Text(name, value) => {
            let mut inner = scope.start_el(name).finish();
            inner.data(value);
            inner.finish();
        }
        Node::Elements(name, nodes) => {
            let mut inner = scope.start_el(name).finish();
            for node in nodes {
                write(&mut inner, node);
            }
            inner.finish();
        }
    }
}

fn reply(status: u16, request_id: &str, body: String) -> Reply {
    Reply::Answer {
        status,
        content_type: CONTENT_TYPE,
        headers: vec![("x-amzn-requestid".to_owned(), request_id.to_owned())],
        body: body.into_bytes(),
    }
}
