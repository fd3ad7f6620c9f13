//! Passes the layout that `scripts/build.sh --layout=N` asks for to the linker: the program's functions and data in an
//! order that is drawn by N, and no other difference. Without one, as written.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ALPHA_LAYOUT");
    if let Ok(seed) = std::env::var("ALPHA_LAYOUT") {
        for sections in [".text*", ".rodata*", ".data*", ".bss*"] {
            println!("cargo::rustc-link-arg-bin=alpha=-Wl,--shuffle-sections={sections}={seed}");
        }
    }
}
