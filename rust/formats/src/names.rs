//! Tensors by name, without a second copy of the names.

/// Indices into a list of named things, in the order of the names.
#[derive(Debug)]
pub(crate) struct NameIndex(Vec<u32>);

impl NameIndex {
    /// The index of `things`, of which there are fewer than 2^32; where a name occurs twice, the later
    /// of the two.
    pub(crate) fn new<T>(things: &[T], name: impl Fn(&T) -> &str) -> Result<Self, &T> {
        let mut order: Vec<u32> = (0..things.len() as u32).collect();
        let at = |i: u32| name(&things[i as usize]);
        order.sort_unstable_by(|&a, &b| at(a).cmp(at(b)));
        match order.windows(2).find(|pair| at(pair[0]) == at(pair[1])) {
            Some(pair) => Err(&things[pair[0].max(pair[1]) as usize]),
            None => Ok(Self(order)),
        }
    }

    /// The thing called `wanted`; `things` and `name` as when the index was made.
    pub(crate) fn find<'a, T>(
        &self,
        things: &'a [T],
        name: impl Fn(&T) -> &str,
        wanted: &str,
    ) -> Option<&'a T> {
        let found = self.0.binary_search_by(|&i| name(&things[i as usize]).cmp(wanted)).ok()?;
        Some(&things[self.0[found] as usize])
    }
}
