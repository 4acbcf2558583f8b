//! `weft analyze`: what is wrong with the manifests, as the control plane found it.

use weft_control::source::manifests::Problem;

pub(crate) fn table_of(problems: &[Problem]) -> String {
    if problems.is_empty() {
        return "no problems found\n".to_owned();
    }
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}
