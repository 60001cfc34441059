//! template.yaml with a run's parameters, read once for each set of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use local::Template;

use crate::{Failed, Result};

type Parameters = Vec<(String, String)>;

static READ: Mutex<BTreeMap<Parameters, Arc<Template>>> = Mutex::new(BTreeMap::new());

/// The template with these parameters.
pub(crate) fn of(parameters: &Parameters) -> Result<Arc<Template>> {
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(template) = read.get(parameters) {
        return Ok(Arc::clone(template));
    }
    let template = Arc::new(Template::load(parameters).map_err(Failed)?);
    read.insert(parameters.clone(), Arc::clone(&template));
    Ok(template)
}
