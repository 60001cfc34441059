//! The JSON of the two pages on which the feature was published: it is law.

/// What a page shows.
pub(crate) struct Page {
    /// Which page.
    pub(crate) name: &'static str,
    /// An item of the list.
    pub(crate) item: &'static str,
    /// The body of a create.
    pub(crate) create: &'static str,
}

/// The API reference.
pub(crate) const REFERENCE: Page = Page {
    name: "reference",
    item: include_str!("../../../docs/published/reference-item.json"),
    create: include_str!("../../../docs/published/reference-create.json"),
};

/// The guide.
pub(crate) const GUIDE: Page = Page {
    name: "guide",
    item: include_str!("../../../docs/published/guide-item.json"),
    create: include_str!("../../../docs/published/guide-create.json"),
};
