//! API Gateway's routes: which one takes a request, and what its variables are.
//!
//! Source: API Gateway developer guide, "Routing API requests": the most
//! specific match wins; a full match over a greedy `{name+}`, that over
//! `$default`.

use crate::template::Name;

/// One route of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// As the payload's `routeKey`: `GET /deployments/{deployment_id}`, or `$default`.
    pub(crate) key: String,
    /// Whose it is.
    pub(crate) function: Name,
    /// None: any.
    method: Option<String>,
    /// None: the catch-all.
    path: Option<Vec<Segment>>,
}

/// A part of a route's path. Ordered from the most specific.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Fixed(String),
    Variable(String),
    Greedy(String),
}

/// The routes, the most specific first.
#[derive(Debug, Clone)]
pub(crate) struct Routes(Vec<Route>);

/// The route that takes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match<'a> {
    /// Which.
    pub(crate) route: &'a Route,
    /// Its variables, decoded.
    pub(crate) parameters: Vec<(String, String)>,
}

impl Route {
    /// A route for a path like `/a/{b}/{c+}`.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub(crate) fn new(method: &str, path: &str, function: Name) -> Result<Self, String> {
        let method = method.to_ascii_uppercase();
        let inner =
            path.strip_prefix('/').ok_or_else(|| format!("{path} does not begin with /"))?;
        let segments: Vec<_> = inner.split('/').map(segment).collect();
        let last = segments.len() - 1;
        if segments.iter().take(last).any(|segment| matches!(segment, Segment::Greedy(_))) {
            return Err(format!("{path}: only the last part may be greedy"));
        }
        Ok(Self {
            key: format!("{method} {path}"),
            function,
            method: (method != "ANY").then_some(method),
            path: Some(segments),
        })
    }

    /// The catch-all.
    pub(crate) fn fallback(function: Name) -> Self {
        Self { key: "$default".to_owned(), function, method: None, path: None }
    }

    /// From the most specific: each part of the path, then the method.
    fn rank(&self) -> (bool, Vec<u8>, bool) {
        let kinds = self.path.iter().flatten().map(|segment| match segment {
            Segment::Fixed(_) => 0,
            Segment::Variable(_) => 1,
            Segment::Greedy(_) => 2,
        });
        (self.path.is_none(), kinds.collect(), self.method.is_none())
    }

    fn parameters(&self, method: &str, path: &str) -> Option<Vec<(String, String)>> {
        if self.method.as_deref().is_some_and(|own| own != method) {
            return None;
        }
        let mut parameters = Vec::new();
        let Some(segments) = &self.path else {
            return Some(parameters);
        };
        let mut rest = Some(path.strip_prefix('/')?);
        for segment in segments {
            let here = rest?;
            if let Segment::Greedy(name) = segment {
                if here.is_empty() {
                    return None;
                }
                parameters.push((name.clone(), decode(here)));
                return Some(parameters);
            }
            let (part, after) = match here.split_once('/') {
                Some((part, after)) => (part, Some(after)),
                None => (here, None),
            };
            match segment {
                Segment::Fixed(text) if *text != decode(part) => return None,
                Segment::Variable(_) if part.is_empty() => return None,
                Segment::Variable(name) => parameters.push((name.clone(), decode(part))),
                Segment::Fixed(_) | Segment::Greedy(_) => {}
            }
            rest = after;
        }
        rest.is_none().then_some(parameters)
    }
}

impl Routes {
    /// Orders the routes.
    pub(crate) fn new(mut routes: Vec<Route>) -> Self {
        routes.sort_by_key(Route::rank);
        Self(routes)
    }

    /// The routes' keys, `METHOD /path` and `$default`.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.0.iter().map(|route| &route.key)
    }

    /// The route for a request, if one takes it.
    pub(crate) fn find(&self, method: &str, path: &str) -> Option<Match<'_>> {
        self.0.iter().find_map(|route| {
            let parameters = route.parameters(method, path)?;
            Some(Match { route, parameters })
        })
    }
}

fn segment(text: &str) -> Segment {
    match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        None => Segment::Fixed(text.to_owned()),
        Some(name) => match name.strip_suffix('+') {
            None => Segment::Variable(name.to_owned()),
            Some(name) => Segment::Greedy(name.to_owned()),
        },
    }
}

/// Percent-decodes, as the gateway does before a function sees the path.
pub(crate) fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let route = |method, path| Route::new(method, path, Name::Api).expect("a route");
        Routes::new(vec![
            Route::fallback(Name::Api),
            route("ANY", "/console/{file+}"),
            route("GET", "/deployments/{deployment_id}/backups/{backup_id}"),
            route("get", "/deployments/{deployment_id}/backups/schedule"),
            route("GET", "/deployments/{deployment_id}/backups"),
            route("POST", "/deployments/{deployment_id}/backups"),
        ])
    }

    fn key(method: &str, path: &str) -> String {
        routes().find(method, path).map(|found| found.route.key.clone()).unwrap_or_default()
    }

    #[test]
    fn the_most_specific_route_takes_the_request() {
        assert_eq!(
            key("POST", "/deployments/1/backups"),
            "POST /deployments/{deployment_id}/backups"
        );
        assert_eq!(
            key("GET", "/deployments/1/backups/schedule"),
            "GET /deployments/{deployment_id}/backups/schedule"
        );
        assert_eq!(
            key("GET", "/deployments/1/backups/2"),
            "GET /deployments/{deployment_id}/backups/{backup_id}"
        );
        assert_eq!(key("PUT", "/console/a/b.js"), "ANY /console/{file+}");
        for other in [
            "/",
            "/deployments",
            "/deployments//backups",
            "/deployments/1/backups/",
            "/deployments/1/backups/2/3",
            "/console/",
        ] {
            assert_eq!(key("GET", other), "$default", "{other}");
        }
        assert_eq!(key("PUT", "/deployments/1/backups"), "$default");
    }

    #[test]
    fn variables_are_decoded() {
        let routes = routes();
        let found = routes.find("GET", "/deployments/a%20b/backups/%32").expect("a route");
        let parameters: Vec<_> =
            found.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(parameters, [("deployment_id", "a b"), ("backup_id", "2")]);
    }

    #[test]
    fn without_a_catch_all_nothing_takes_it() {
        assert!(Routes::new(Vec::new()).find("GET", "/").is_none());
        assert!(Route::new("GET", "no-slash", Name::Api).is_err());
        assert!(Route::new("GET", "/{a+}/b", Name::Api).is_err());
    }
}
