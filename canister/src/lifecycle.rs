//! What happens when the module is installed or replaced.

use crate::jobs::{driver, pending};
use crate::loading;
use crate::runtime;
use crate::settings;
use crate::stable::directory;
use crate::store::commit;
use crate::store::models::{self, Stage};
use onnx_canister_interface::InitArgs;

/// A new canister: opens stable memory and takes the settings.
pub fn init(args: Option<InitArgs>) {
    open();
    apply(args);
}

/// What a new heap begins with. Stable memory is opened, and repaired where one of two copies is damaged.
fn open() {
    #[cfg(target_family = "wasm")]
    crate::constructors::run();
    directory::open();
    pending::restore();
}

/// Refuses the upgrade while a call of the canister to itself is open: its callback would enter the new module at an
/// address of the old one. Nothing else happens here, so nothing else can go wrong.
pub fn pre_upgrade() {
    let open = driver::open_calls();
    if open > 0 {
        runtime::trap(&format!(
            "this canister has {open} open call(s) to itself, whose callbacks would enter the new module: stop the \
             canister first, which takes at most one message, and then upgrade it. Nothing was changed."
        ));
    }
}

/// After an upgrade the heap is empty: what was on it is brought back from stable memory, by itself.
pub fn post_upgrade(args: Option<InitArgs>) {
    open();
    apply(args);
    for key in models::keys() {
        // Keys come from the map of records, so each has one.
        match models::record(&key).map(|record| record.stage.clone()) {
            Ok(Stage::Ready | Stage::Loading) => {
                let _ = models::update(&key, |record| record.stage = Stage::Loading);
                loading::begin(&key);
            }
            Ok(Stage::Committing) => commit::resume(&key),
            _ => {}
        }
    }
    driver::arm();
}

fn apply(args: Option<InitArgs>) {
    let Some(patch) = args.and_then(|args| args.settings) else {
        return;
    };
    if let Err(error) = settings::update(patch) {
        runtime::trap(&format!("the install argument's settings: {error}"));
    }
}
