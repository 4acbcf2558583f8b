use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{port: {port}}}]}}\n"
    )
}

struct Tree {
    temp: TempDir,
    folder: Folder,
}

impl Tree {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::new(temp.path().to_owned());
        Self { temp, folder }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.temp.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn rescan(&mut self) -> Changes {
        self.folder.rescan(&HashSet::new()).unwrap()
    }

    /// What a look at these paths alone changes; `None` where that is not enough.
    fn update(&mut self, paths: &[&str]) -> Option<Changes> {
        let paths = paths.iter().map(|path| self.temp.path().join(path)).collect();
        self.folder.update(&paths, &HashSet::new())
    }

    fn problems(&self) -> Vec<String> {
        self.folder.problems().map(|problem| problem.to_string()).collect()
    }
}

fn inserted(changes: &Changes) -> Vec<String> {
    let mut keys = changes.inserted.iter().map(|object| object.key().to_string()).collect::<Vec<_>>();
    keys.sort();
    keys
}

fn removed(changes: &Changes) -> Vec<String> {
    changes.removed.iter().map(ToString::to_string).collect()
}

#[test]
fn files_of_all_levels_are_read_and_others_are_not() {
    let mut tree = Tree::new();
    tree.write("a.yaml", &service("a", "80"));
    tree.write("deep/er/b.yml", &service("b", "80"));
    tree.write("c.json", "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"c\"}}");
    tree.write("notes.txt", "not: [yaml");
    tree.write(".hidden.yaml", "not: [yaml");
    assert_eq!(inserted(&tree.rescan()), ["Namespace c", "Service default/a", "Service default/b"]);
    assert!(tree.rescan().is_empty());
}

#[test]
fn a_bad_file_keeps_its_last_good_state_until_it_is_mended() {
    let mut tree = Tree::new();
    tree.write("a.yaml", &service("a", "80"));
    tree.write("b.yaml", &service("b", "80"));
    tree.rescan();
    tree.write("a.yaml", &format!("{}---\n{}", service("a2", "80"), service("a3", "none")));
    tree.write("b.yaml", &service("b2", "80"));
    let changes = tree.rescan();
    assert_eq!(inserted(&changes), ["Service default/b2"]);
    assert_eq!(removed(&changes), ["Service default/b"]);
    assert_eq!(changes.new_problems.len(), 1);
    let problem = changes.new_problems[0].to_string();
    assert!(problem.starts_with("a.yaml: document 2 (line 5): spec.ports[0].port: invalid type"), "{problem}");
    assert!(tree.rescan().new_problems.is_empty(), "it is said once");
    assert_eq!(tree.problems(), [problem]);

    tree.write("a.yaml", &service("a", "81"));
    let changes = tree.rescan();
    assert_eq!(inserted(&changes), ["Service default/a"]);
    assert_eq!(changes.mended, [PathBuf::from("a.yaml")]);
    assert!(tree.problems().is_empty());
}

#[test]
fn a_file_that_goes_takes_its_objects_along() {
    let mut tree = Tree::new();
    tree.write("a.yaml", &service("a", "80"));
    tree.rescan();
    fs::remove_file(tree.temp.path().join("a.yaml")).unwrap();
    assert_eq!(removed(&tree.rescan()), ["Service default/a"]);
}

#[test]
fn documents_that_did_not_change_are_not_news() {
    let mut tree = Tree::new();
    tree.write("a.yaml", &format!("{}---\n{}", service("a", "80"), service("b", "80")));
    tree.rescan();
    tree.write("a.yaml", &format!("{}---\n{}", service("b", "80"), service("a", "81")));
    let changes = tree.rescan();
    assert_eq!(inserted(&changes), ["Service default/a"]);
    assert!(changes.removed.is_empty());
}

#[test]
fn of_two_files_with_one_object_the_first_counts() {
    let mut tree = Tree::new();
    tree.write("b.yaml", &service("a", "80"));
    tree.rescan();
    tree.write("a.yaml", &service("a", "81"));
    let changes = tree.rescan();
    assert_eq!(inserted(&changes), ["Service default/a"]);
    let Object::Service(service) = &changes.inserted[0] else { panic!() };
    assert_eq!(service.ports[0].number, 81);
    assert_eq!(
        changes.new_problems[0].to_string(),
        "b.yaml: Service default/a is already defined in a.yaml, which counts"
    );
    assert_eq!(tree.problems(), ["b.yaml: Service default/a is already defined in a.yaml, which counts"]);
    fs::remove_file(tree.temp.path().join("a.yaml")).unwrap();
    let changes = tree.rescan();
    let Object::Service(service) = &changes.inserted[0] else { panic!() };
    assert_eq!(service.ports[0].number, 80);
    assert!(changes.has_other_problems && tree.problems().is_empty());
}

#[test]
fn a_look_at_some_paths_sees_what_happened_there_and_nothing_else() {
    let mut tree = Tree::new();
    for name in ["a.yaml", "b.yaml", "sub/c.yaml", "sub/d.yaml", "sub2/e.yaml"] {
        tree.write(
            name,
            &service(name.trim_end_matches(".yaml").trim_start_matches("sub/").trim_start_matches("sub2/"), "80"),
        );
    }
    tree.rescan();
    tree.write("a.yaml", &service("a", "81"));
    tree.write("b.yaml", &service("b", "81"));
    tree.write("notes.txt", "not: [yaml");
    let changes = tree.update(&["a.yaml", "notes.txt", ".a.yaml.swp"]).unwrap();
    assert_eq!(inserted(&changes), ["Service default/a"]);
    assert!(tree.update(&["a.yaml"]).unwrap().is_empty());
    fs::rename(tree.temp.path().join("b.yaml"), tree.temp.path().join("f.yaml")).unwrap();
    let changes = tree.update(&["b.yaml", "f.yaml"]).unwrap();
    assert_eq!((inserted(&changes), removed(&changes)), (vec!["Service default/b".to_owned()], vec![]));
    fs::remove_dir_all(tree.temp.path().join("sub")).unwrap();
    let mut gone = removed(&tree.update(&["sub"]).unwrap());
    gone.sort();
    assert_eq!(gone, ["Service default/c", "Service default/d"]);
    assert!(tree.rescan().is_empty(), "a look at everything finds no more");
}

#[test]
fn a_look_at_some_paths_is_not_enough_where_folders_or_links_come() {
    let mut tree = Tree::new();
    tree.write("a.yaml", &service("a", "80"));
    tree.rescan();
    tree.write("sub/b.yaml", &service("b", "80"));
    assert!(tree.update(&["sub"]).is_none());
    assert_eq!(inserted(&tree.rescan()), ["Service default/b"]);
    tree.write(".hidden/c.yaml", &service("c", "80"));
    assert!(tree.update(&[".hidden", ".hidden/c.yaml"]).unwrap().is_empty());
    symlink(".hidden/c.yaml", tree.temp.path().join("c.yaml")).unwrap();
    assert!(tree.update(&["c.yaml"]).is_none());
    assert_eq!(inserted(&tree.rescan()), ["Service default/c"]);
    assert!(tree.update(&["a.yaml"]).is_none(), "with a link about, anything may be known by another name");
}

#[test]
fn a_path_in_progress_is_left_alone() {
    let mut tree = Tree::new();
    tree.write("a.yaml", "");
    let paths = HashSet::from([tree.temp.path().join("a.yaml")]);
    tree.rescan();
    tree.write("a.yaml", &service("a", "80"));
    assert!(tree.folder.update(&paths, &paths).unwrap().is_empty());
    assert_eq!(inserted(&tree.update(&["a.yaml"]).unwrap()), ["Service default/a"]);
}

#[test]
fn an_object_twice_in_a_file_refuses_the_file() {
    let mut tree = Tree::new();
    tree.write("a.yaml", &format!("{}---\n{}", service("a", "80"), service("a", "81")));
    assert!(tree.rescan().is_empty());
    assert_eq!(tree.problems(), ["a.yaml: document 2 (line 5): Service default/a is already defined in document 1"]);
}

#[test]
fn a_mounted_config_map_is_followed_when_it_is_swapped() {
    let mut tree = Tree::new();
    tree.write("..2026_1/a.yaml", &service("a", "80"));
    tree.write("..2026_2/a.yaml", &service("a", "81"));
    let root = tree.temp.path().to_owned();
    symlink("..2026_1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    assert_eq!(inserted(&tree.rescan()), ["Service default/a"]);
    symlink("..2026_2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    let changes = tree.rescan();
    let Object::Service(service) = &changes.inserted[0] else { panic!() };
    assert_eq!(service.ports[0].number, 81);
}

#[test]
fn a_circle_of_links_ends() {
    let mut tree = Tree::new();
    tree.write("a/a.yaml", "");
    symlink("..", tree.temp.path().join("a/up")).unwrap();
    assert!(tree.rescan().is_empty());
}

#[test]
fn a_file_in_progress_is_left_alone() {
    let mut tree = Tree::new();
    tree.write("a.yaml", &service("a", "80"));
    tree.rescan();
    tree.write("a.yaml", "");
    let writing = HashSet::from([tree.temp.path().join("a.yaml")]);
    assert!(tree.folder.rescan(&writing).unwrap().is_empty());
    assert_eq!(removed(&tree.rescan()), ["Service default/a"]);
}

#[test]
fn an_oversized_file_is_refused_without_being_read() {
    let mut tree = Tree::new();
    let file = fs::File::create(tree.temp.path().join("a.yaml")).unwrap();
    file.set_len(50 * 1024 * 1024).unwrap();
    tree.rescan();
    assert!(tree.problems()[0].starts_with("a.yaml: is 52428800 bytes long"), "{:?}", tree.problems());
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let mut tree = Tree::new();
    fs::write(tree.temp.path().join("a.yaml"), b"a: \xff\xfe").unwrap();
    tree.rescan();
    assert_eq!(tree.problems().len(), 1);
}

#[test]
fn a_folder_that_is_gone_is_an_error_and_changes_nothing() {
    let mut tree = Tree::new();
    tree.write("a.yaml", &service("a", "80"));
    tree.rescan();
    let moved = tree.temp.path().with_extension("moved");
    fs::rename(tree.temp.path(), &moved).unwrap();
    assert!(tree.folder.rescan(&HashSet::new()).is_err());
    fs::rename(&moved, tree.temp.path()).unwrap();
    assert!(tree.rescan().is_empty());
}
