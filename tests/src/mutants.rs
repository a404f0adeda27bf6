//! Bugs put in by hand (`tests/mutants.txt`): read, looked up in the sources, put in.

use std::path::Path;

/// One bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// What it does, in words.
    pub name: String,
    /// The file it goes into, below the project.
    pub file: String,
    /// Lines that stand there, without their indentation; a single line may be a part of one.
    pub from: Vec<String>,
    /// What takes their place.
    pub to: Vec<String>,
}

/// All of a list; an error names the line.
pub fn read(text: &str) -> Result<Vec<Mutant>, String> {
    let mut found: Vec<Mutant> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("line {}: {what}", at + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if found.iter().any(|mutant| mutant.name == name) {
                return Err(wrong("a name that is there already"));
            }
            let name = name.to_owned();
            found.push(Mutant { name, file: String::new(), from: Vec::new(), to: Vec::new() });
            continue;
        }
        let mutant = found.last_mut().ok_or_else(|| wrong("no [name] before it"))?;
        match (line.strip_prefix("- "), line.strip_prefix("+ ")) {
            (Some(from), _) => mutant.from.push(from.to_owned()),
            (_, Some(to)) => mutant.to.push(to.to_owned()),
            _ if mutant.file.is_empty() => mutant.file = line.to_owned(),
            _ => return Err(wrong("neither '- ' nor '+ '")),
        }
    }
    match found.iter().find(|mutant| mutant.from.is_empty() || mutant.to.is_empty() || mutant.file.is_empty())
    {
        Some(mutant) => Err(format!("[{}] needs a file, '- ' and '+ '", mutant.name)),
        None => Ok(found),
    }
}

impl Mutant {
    /// The source with the bug in it; an error unless its text stands there exactly once.
    pub fn put_into(&self, source: &str) -> Result<String, String> {
        let lines: Vec<&str> = source.lines().collect();
        let here = |window: &[&str]| match (window, self.from.as_slice()) {
            ([line], [from]) => line.contains(from.as_str()),
            _ => window.iter().zip(&self.from).all(|(line, from)| line.trim() == from),
        };
        let places: Vec<usize> =
            lines.windows(self.from.len()).enumerate().filter(|(_, w)| here(w)).map(|(at, _)| at).collect();
        let [at] = places[..] else {
            return Err(format!("[{}] stands {} times in {}", self.name, places.len(), self.file));
        };
        let mut mutated: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let to = match self.from.as_slice() {
            [from] => lines[at].replacen(from.as_str(), &self.to.join("\n"), 1),
            _ => self.to.join("\n"),
        };
        mutated.splice(at..at + self.from.len(), [to]);
        Ok(mutated.join("\n") + "\n")
    }
}

/// The list of the project at `root`.
pub fn of(root: &Path) -> Result<Vec<Mutant>, String> {
    let path = root.join("tests/mutants.txt");
    read(&std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str =
        "# why\n[wrong]\na.rs\n- x > 1\n+ x >= 1\n\n[gone]\na.rs\n- one();\n- two();\n+ one();\n";

    #[test]
    fn a_bug_takes_the_place_of_a_part_of_one_line_or_of_several_lines() {
        let list = read(LIST).unwrap();
        let source = "if x > 1 {\n    one();\n    two();\n}\n";
        assert_eq!(list[0].put_into(source).unwrap(), "if x >= 1 {\n    one();\n    two();\n}\n");
        assert_eq!(list[1].put_into(source).unwrap(), "if x > 1 {\none();\n}\n");
    }

    #[test]
    fn a_text_that_is_not_there_exactly_once_is_an_error() {
        let list = read(LIST).unwrap();
        assert!(list[0].put_into("x > 1\nx > 1\n").unwrap_err().contains("2 times in a.rs"));
        assert!(list[0].put_into("").unwrap_err().contains("0 times"));
    }

    #[test]
    fn a_list_with_a_mistake_names_its_place() {
        assert_eq!(read("- x\n").unwrap_err(), "line 1: no [name] before it");
        assert_eq!(read("[a]\nf\n- x\n").unwrap_err(), "[a] needs a file, '- ' and '+ '");
        assert_eq!(read("[a]\nf\n- x\n+ y\n[a]\n").unwrap_err(), "line 5: a name that is there already");
    }
}
