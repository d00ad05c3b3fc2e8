//! jinja2's filters.

mod attr;
mod choose;
mod markup;
mod number;
mod sequence;
mod text;

pub(crate) use attr::AttrPath;
pub(crate) use markup::escaped;

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::json::to_json;
use crate::value::Value;

/// A filter.
pub(crate) type FilterFn = fn(&mut Interp<'_>, Value, Args) -> Outcome<Value>;

/// The filter called `name`.
pub(crate) fn filter_by_name(name: &str) -> Option<FilterFn> {
    Some(match name {
        "abs" => number::abs,
        "attr" => attr::attr,
        "batch" => sequence::batch,
        "capitalize" => text::capitalize,
        "center" => text::center,
        "count" | "length" => sequence::length,
        "d" | "default" => default,
        "dictsort" => sequence::dict_sort,
        "e" | "escape" => markup::escape,
        "filesizeformat" => number::file_size,
        "first" => sequence::first,
        "float" => number::float,
        "forceescape" => markup::force_escape,
        "format" => text::format,
        "groupby" => sequence::group_by,
        "indent" => text::indent,
        "int" => number::int,
        "items" => sequence::items,
        "join" => text::join,
        "last" => sequence::last,
        "list" => sequence::list,
        "lower" => text::lower,
        "map" => choose::map,
        "max" => sequence::max,
        "min" => sequence::min,
        "random" => random,
        "reject" => choose::reject,
        "rejectattr" => choose::reject_attr,
        "replace" => text::replace,
        "reverse" => sequence::reverse,
        "round" => number::round,
        "safe" => markup::safe,
        "select" => choose::select,
        "selectattr" => choose::select_attr,
        "slice" => sequence::slice,
        "sort" => sequence::sort,
        "string" => text::string,
        "striptags" => markup::strip_tags,
        "sum" => sequence::sum,
        "title" => text::title,
        "tojson" => |interp, value, args| to_json(interp, &value, args),
        "trim" => text::trim,
        "truncate" => text::truncate,
        "unique" => sequence::unique,
        "upper" => text::upper,
        "urlencode" => markup::url_encode,
        "wordcount" => text::word_count,
        "wordwrap" => text::word_wrap,
        "xmlattr" => markup::xml_attr,
        _ => return None,
    })
}

fn default(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [default, boolean] = args.bind("default", ["default_value", "boolean"], 0)?;
    let is_strict = boolean.is_some_and(|boolean| boolean.truth());
    if matches!(value, Value::Undefined(_)) || is_strict && !value.truth() {
        return default.map_or_else(|| interp.new_text(""), Ok);
    }
    Ok(value)
}

fn random(_: &mut Interp<'_>, _: Value, _: Args) -> Outcome<Value> {
    fail!("a template may not draw at random")
}
