//! What is said about a key, once: parser, environment, `config show`, `docs/configuration.md` and
//! errors all read it here. Keys stand in sections, one of each, or in rows of lists, `[[policy]]`.
//! Invariant: a default is a value that its own declaration allows (a test tries each).

use super::value::Value;

pub struct Section {
    pub name: &'static str,
    pub about: &'static str,
    pub keys: &'static [Key],
}

/// Rows of keys, of which there may be any number.
pub struct List {
    pub name: &'static str,
    pub about: &'static str,
    pub keys: &'static [Key],
    /// The path of the key that no row goes without.
    pub needed: &'static str,
    /// Whether a reload changes it while clients stay.
    pub is_live: bool,
}

pub struct Key {
    /// Section or list, and name, joined by a dot.
    pub path: &'static str,
    pub help: &'static str,
    pub spec: Spec,
}

pub struct Spec {
    pub allowed: Allowed,
    /// Without meaning in a row: a key that is not there says nothing.
    pub default: Default,
    /// What a reload changes while clients stay; everything else waits for a restart.
    pub is_live: bool,
    /// Never shown.
    pub is_secret: bool,
    /// A second name in the environment, for what is set most.
    pub short: Option<&'static str>,
}

pub enum Allowed {
    Flag,
    /// A whole number of `unit`, or the word, where there is one.
    Number {
        unit: &'static str,
        least: u64,
        most: u64,
        word: Option<&'static str>,
    },
    OneOf(&'static [&'static str]),
    /// What `fits`, described as `what`.
    Text {
        what: &'static str,
        example: &'static str,
        fits: fn(&str) -> bool,
    },
}

#[derive(Clone, Copy)]
pub enum Default {
    Flag(bool),
    Number(u64),
    Text(&'static str),
}

impl Default {
    pub fn value(self) -> Value {
        match self {
            Default::Flag(flag) => Value::Flag(flag),
            Default::Number(number) => Value::Number(number),
            Default::Text(text) => Value::Text(text.into()),
        }
    }
}

impl Spec {
    const fn new(allowed: Allowed, default: Default) -> Spec {
        Spec { allowed, default, is_live: false, is_secret: false, short: None }
    }

    pub const fn live(mut self) -> Spec {
        self.is_live = true;
        self
    }

    pub const fn secret(mut self) -> Spec {
        self.is_secret = true;
        self
    }

    pub const fn short(mut self, name: &'static str) -> Spec {
        self.short = Some(name);
        self
    }
}

pub const fn flag(default: bool) -> Spec {
    Spec::new(Allowed::Flag, Default::Flag(default))
}

pub const fn number(unit: &'static str, least: u64, most: u64, default: u64) -> Spec {
    Spec::new(Allowed::Number { unit, least, most, word: None }, Default::Number(default))
}

/// A number where a word, the default, stands for none.
pub const fn number_or(word: &'static str, unit: &'static str, least: u64, most: u64) -> Spec {
    Spec::new(Allowed::Number { unit, least, most, word: Some(word) }, Default::Text(word))
}

/// A number by default, which a word switches off.
pub const fn number_unless(word: &'static str, unit: &'static str, least: u64, most: u64, default: u64) -> Spec {
    Spec::new(Allowed::Number { unit, least, most, word: Some(word) }, Default::Number(default))
}

/// The first is the default unless said otherwise.
pub const fn one_of(words: &'static [&'static str], default: &'static str) -> Spec {
    Spec::new(Allowed::OneOf(words), Default::Text(default))
}

pub const fn text(what: &'static str, example: &'static str, fits: fn(&str) -> bool, default: &'static str) -> Spec {
    Spec::new(Allowed::Text { what, example, fits }, Default::Text(default))
}

/// What a field of the tree is made of.
pub trait Typed {
    fn of(value: &Value) -> Self;
}

impl Typed for bool {
    fn of(value: &Value) -> bool {
        match value {
            Value::Flag(flag) => *flag,
            _ => unreachable!("a flag holds true or false only"),
        }
    }
}

impl Typed for u64 {
    fn of(value: &Value) -> u64 {
        match value {
            Value::Number(number) => *number,
            _ => unreachable!("a key without a word holds numbers only"),
        }
    }
}

/// `None`: the word.
impl Typed for Option<u64> {
    fn of(value: &Value) -> Option<u64> {
        match value {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl Typed for String {
    fn of(value: &Value) -> String {
        match value {
            Value::Text(text) => text.clone(),
            _ => unreachable!("a key of texts holds texts only"),
        }
    }
}

/// Makes of one list of keys the declarations and a struct for each section.
macro_rules! sections {
    ($(
        $(#[doc = $about:literal])+
        $section:ident: $Section:ident {
            $( $(#[doc = $help:literal])+ $key:ident: $Type:ty = $spec:expr; )+
        }
    )+) => {
        /// All that an operator may set.
        pub struct Tree {
            $( pub $section: $Section, )+
        }

        $(
            pub struct $Section {
                $( pub $key: $Type, )+
            }
        )+

        pub static SECTIONS: &[Section] = &[
            $( Section {
                name: stringify!($section),
                about: concat!($($about),+),
                keys: &[
                    $( Key {
                        path: concat!(stringify!($section), ".", stringify!($key)),
                        help: concat!($($help),+),
                        spec: $spec,
                    }, )+
                ],
            }, )+
        ];

        impl Tree {
            /// `value_of` knows the value of each path, and has checked it against its key.
            pub fn read<'a>(value_of: impl Fn(&str) -> &'a Value) -> Tree {
                Tree {
                    $( $section: $Section {
                        $( $key: <$Type as Typed>::of(value_of(concat!(stringify!($section), ".", stringify!($key)))), )+
                    }, )+
                }
            }
        }
    };
}

/// Makes of one list of keys the declarations and a struct for the rows of each list.
macro_rules! lists {
    ($(
        $(#[doc = $about:literal])+
        $list:ident: $Row:ident needs $needed:ident is_live $is_live:literal {
            $( $(#[doc = $help:literal])+ $key:ident: $Type:ty = $spec:expr; )+
        }
    )+) => {
        /// All rows that an operator wrote, in their order.
        pub struct Lists {
            $( pub $list: Vec<$Row>, )+
        }

        $(
            pub struct $Row {
                $( pub $key: Option<$Type>, )+
            }
        )+

        pub static LISTS: &[List] = &[
            $( List {
                name: stringify!($list),
                about: concat!($($about),+),
                keys: &[
                    $( Key {
                        path: concat!(stringify!($list), ".", stringify!($key)),
                        help: concat!($($help),+),
                        spec: $spec,
                    }, )+
                ],
                needed: concat!(stringify!($list), ".", stringify!($needed)),
                is_live: $is_live,
            }, )+
        ];

        impl Lists {
            /// `rows_of` knows the rows of each list, whose values were checked against their keys.
            pub fn read<'a>(rows_of: impl Fn(&str) -> &'a [Row]) -> Lists {
                Lists {
                    $( $list: rows_of(stringify!($list)).iter().map(|row| $Row {
                        $( $key: row.value(concat!(stringify!($list), ".", stringify!($key))).map(<$Type as Typed>::of), )+
                    }).collect(), )+
                }
            }
        }
    };
}

pub(super) use {lists, sections};
