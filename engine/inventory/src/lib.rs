//! Values that crates submit and other crates go through, with the interface of the crate `inventory` as far as tract
//! uses it.
//!
//! Each submission is a static constructor, which the linker keeps with everything it mentions. Collections that this
//! program never goes through (see [`collect!`]) stay empty here: their constructors do nothing, and what was
//! submitted goes out of the program at link time.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

/// A type of which values can be submitted.
pub trait Collect: Sync + Sized + 'static {
    /// Whether what is submitted is kept.
    const KEPT: bool;

    #[doc(hidden)]
    fn registry() -> &'static Registry<Self>;
}

/// What has been submitted of one type.
#[doc(hidden)]
pub struct Registry<T: 'static>(Mutex<Vec<&'static T>>);

impl<T> Registry<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A value of any type that is collected.
#[doc(hidden)]
pub trait Submit: Sync {
    fn submit(&'static self);
}

impl<T: Collect> Submit for T {
    fn submit(&'static self) {
        if T::KEPT {
            T::registry().0.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
    }
}

/// Values in the order in which they are gone through.
pub type Iter<T> = std::iter::Rev<std::vec::IntoIter<&'static T>>;

/// Goes through what has been submitted, the last first, as `iter::<T>()` or `iter::<T>.into_iter()`.
#[allow(non_camel_case_types)]
pub type iter<T> = value::iter<T>;

mod value {
    use std::convert::Infallible;
    use std::marker::PhantomData;

    /// A value with the name of its type, so that `iter::<T>` is an expression; the other variant can't be made.
    #[allow(non_camel_case_types)]
    pub enum iter<T> {
        #[doc(hidden)]
        __Never(PhantomData<T>, Infallible),
        iter,
    }

    pub mod name {
        pub use super::iter::iter;
    }
}

#[doc(hidden)]
pub use value::name::*;

fn go_through<T: Collect>() -> Iter<T> {
    T::registry().0.lock().unwrap_or_else(PoisonError::into_inner).clone().into_iter().rev()
}

impl<T: Collect> IntoIterator for iter<T> {
    type Item = &'static T;
    type IntoIter = Iter<T>;

    fn into_iter(self) -> Iter<T> {
        go_through()
    }
}

impl<T: Collect> Deref for iter<T> {
    type Target = fn() -> Iter<T>;

    fn deref(&self) -> &Self::Target {
        &(go_through::<T> as fn() -> Iter<T>)
    }
}

/// Declares a type to be collected: tract's types of this name that nothing here goes through are not kept.
#[macro_export]
macro_rules! collect {
    (ModelTransformFactory) => {
        $crate::__collect!(ModelTransformFactory, false);
    };
    (InventorizedRuntime) => {
        $crate::__collect!(InventorizedRuntime, false);
    };
    ($type:ty) => {
        $crate::__collect!($type, true);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __collect {
    ($type:ty, $kept:expr) => {
        impl $crate::Collect for $type {
            const KEPT: bool = $kept;

            fn registry() -> &'static $crate::Registry<Self> {
                static REGISTRY: $crate::Registry<$type> = $crate::Registry::new();
                &REGISTRY
            }
        }
    };
}

/// Submits a value when the program starts; what would not be kept is not even compiled where its type can be seen.
#[macro_export]
macro_rules! submit {
    (ModelTransformFactory { $($value:tt)* }) => {};
    ($($value:tt)*) => {
        const _: () = {
            static VALUE: &dyn $crate::Submit = &{ $($value)* };
            static SUBMITTED: ::std::sync::atomic::AtomicBool = ::std::sync::atomic::AtomicBool::new(false);

            // On Wasm a program may run its constructors more than once.
            extern "C" fn submit() {
                if !SUBMITTED.swap(true, ::std::sync::atomic::Ordering::Relaxed) {
                    $crate::Submit::submit(VALUE);
                }
            }

            #[used]
            #[cfg_attr(
                any(target_family = "wasm", all(unix, not(target_vendor = "apple"))),
                unsafe(link_section = ".init_array")
            )]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func,mod_init_funcs"))]
            #[cfg_attr(windows, unsafe(link_section = ".CRT$XCU"))]
            static CONSTRUCTOR: extern "C" fn() = submit;
        };
    };
}

#[cfg(test)]
mod tests {
    struct Number(u32);
    crate::collect!(Number);
    crate::submit! { Number(1) }
    crate::submit! { Number(2) }

    struct ModelTransformFactory;
    crate::collect!(ModelTransformFactory);
    crate::submit! { ModelTransformFactory }
    crate::submit! { ModelTransformFactory {} }

    #[test]
    fn what_is_submitted_is_gone_through_in_both_forms() {
        let mut called: Vec<u32> = crate::iter::<Number>().map(|number| number.0).collect();
        let converted: Vec<u32> = crate::iter::<Number>.into_iter().map(|number| number.0).collect();
        assert_eq!(called, converted);
        called.sort_unstable();
        assert_eq!(called, [1, 2]);
    }

    #[test]
    fn what_nothing_asks_for_is_not_kept() {
        assert_eq!(crate::iter::<ModelTransformFactory>().count(), 0);
    }
}
