//! How much layouts of the trainer differ is measured by the self-test, where its build can make them.

use crate::toy::Toy;

const WRITTEN: &str = "command = \"./build.sh\"";

fn with_build_command(command: &str) -> Toy {
    let toy = Toy::untested();
    toy.edit_file("loop.toml", WRITTEN, &format!("command = \"{command}\""));
    toy.commit("the build has layouts");
    toy
}

#[test]
fn layouts_are_built_and_run_beside_each_other() {
    let toy = with_build_command("./build.sh --layout={layout}");
    let made = toy.json(&["selftest", "--layouts=5"]);
    let layout = &made.object["layout"];
    assert_eq!(layout["layouts"].as_u64(), Some(5), "{:#}\n{}", made.object, made.stderr);
    let [sd, spread] = ["sd_pct", "spread_pct"].map(|name| layout[name].as_f64().unwrap());
    assert!(sd >= 0.0 && spread > 0.0 && sd <= spread, "{layout:#}");
    let status = toy.json(&["status"]);
    assert!(status.text("layout").starts_with("5 layouts "), "{:#}", status.object);
}

#[test]
fn a_build_that_makes_the_same_program_in_each_layout_measures_nothing() {
    let toy = with_build_command("./build.sh --layout=0 {layout}");
    let made = toy.json(&["selftest", "--layouts=5"]);
    assert!(made.object["layout"].is_null() && made.object["failure"].is_null(), "{:#}", made.object);
    assert!(made.stderr.contains("same program in two layouts"), "{}", made.stderr);
    let status = toy.json(&["status"]);
    assert!(status.text("layout").contains("every gain is confirmed over 10 layouts"), "{:#}", status.object);
}
