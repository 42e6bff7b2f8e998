//! A struct of settings is declared as a table, and this is the macro that reads it. It derives from the rows
//! everything that works the same for all settings: field, default, `with_` method, range, name in the database and in
//! text, and documentation.
//!
//! To add a setting, add a row at the end of `database.rs` or `compaction.rs` (their order is that in the database):
//!
//! ```text
//! /// Bytes in a data block, uncompressed.          a description; default, range and cost are appended
//! block_size: usize {
//!     builder: with_block_size(usize),             its argument is converted with `From`, or `=> function`
//!     stored: "block_size",                        never changes: databases contain it
//!     default: (4 KiB),                            or `(None: "in words")`, `(Some(7 days))`, a variant
//!     range: (64 bytes ..= 1 MiB),                 see `range!`
//!     live: NewSsts,                               a variant of `Live`
//!     group: "ssts",                               the table of docs/tuning.md that lists it
//!     more: "less overhead per block; more to read for one item",
//!     seen_in: "`amplification.read_blocks`",      fields of the statistics
//! }
//! ```
//!
//! Rules that involve several settings are checked by `validate`, beside the table.

/// Generates the struct, its methods and the [`Setting`]s of a table.
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $config:ident;
        $(
            $(#[doc = $doc:literal])+
            $name:ident: $type:ty {
                builder: $builder:ident($($given:ty $(=> $convert:path)?)?),
                stored: $stored:literal,
                default: $default:tt,
                range: $range:tt,
                live: $live:ident,
                group: $group:literal,
                more: $more:literal,
                seen_in: $seen_in:literal,
            }
        )+
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $config {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nDefault: ", default!(text $default), range!(doc $range), ".")]
                #[doc = concat!("\n\n", range!(label $range), ": ", $more, ".")]
                pub $name: $type,
            )+
        }

        impl Default for $config {
            fn default() -> Self {
                Self::DEFAULT
            }
        }

        impl $config {
            /// All settings, in the order of the fields.
            pub const SETTINGS: &'static [Setting] = &[$(
                Setting {
                    name: stringify!($name),
                    builder: builder!($config $builder $($given)?),
                    stored: $stored,
                    unit: range!(unit $range),
                    default: default!(text $default),
                    range: range!(value $type, $range),
                    live: Live::$live,
                    group: $group,
                    more: $more,
                    seen_in: $seen_in,
                },
            )+];

            pub(crate) const DEFAULT: Self = Self { $($name: default!(value $type, $default),)+ };

            /// Returns the defaults.
            pub fn new() -> Self {
                Self::DEFAULT
            }

            $($(
                #[doc = concat!("Sets [`", stringify!($config), "::", stringify!($name), "`]. Default: ")]
                #[doc = concat!(default!(text $default), range!(doc $range), ".")]
                #[must_use]
                pub fn $builder(mut self, $name: $given) -> Self {
                    self.$name = builder!(convert $name $(, $convert)?);
                    self
                }
            )?)+

            /// The Rust expression that creates these settings: the defaults, and a call for each that differs.
            pub fn rust_code(&self) -> String {
                rust_code(stringify!($config), &self.rows(), &Self::DEFAULT.rows())
            }

            /// Returns the settings if they are valid.
            pub(crate) fn validated(self) -> Result<Self> {
                self.validate().map(|()| self)
            }

            /// All settings that can change, as the manifest stores them.
            pub(crate) fn to_settings(&self) -> Vec<(String, u64)> {
                to_settings(&self.rows())
            }

            /// The settings of a manifest; unknown names are skipped, missing ones keep the default.
            pub(crate) fn from_settings(settings: &[(String, u64)]) -> Self {
                let mut config = Self::DEFAULT;
                from_settings(config.rows_mut(), settings);
                config
            }

            /// The usable settings of a manifest, and those that cannot be used.
            pub(crate) fn stored(settings: &[(String, u64)]) -> (Self, Vec<InvalidSetting>) {
                usable(Self::SETTINGS, settings, |settings| Self::from_settings(settings).validated())
            }

            pub(super) fn rows(&self) -> Vec<(&'static Setting, &dyn SettingValue)> {
                Self::SETTINGS.iter().zip([$(&self.$name as &dyn SettingValue,)+]).collect()
            }

            pub(super) fn rows_mut(&mut self) -> Vec<(&'static Setting, &mut dyn SettingValue)> {
                Self::SETTINGS.iter().zip([$(&mut self.$name as &mut dyn SettingValue,)+]).collect()
            }
        }
    };
}

/// The conversion of a builder's argument, or the builder's name for documents. `name()`, without a type, is a
/// constructor whose settings differ from the defaults in this field.
macro_rules! builder {
    (convert $value:ident) => {
        $value.into()
    };
    (convert $value:ident, $convert:path) => {
        $convert($value)
    };
    ($config:ident $constructor:ident) => {
        concat!(stringify!($config), "::", stringify!($constructor), "()")
    };
    ($config:ident $method:ident $given:ty) => {
        stringify!($method)
    };
}

/// A default, as a value or as text: `4 KiB`, `Some(7 days)`, `None: "in words"`, `true`, `Variant`.
macro_rules! default {
    (text (None: $text:literal)) => { $text };
    (text (Some($($amount:tt)+))) => { stringify!($($amount)+) };
    (text ($variant:ident)) => { concat!("`", stringify!($variant), "`") };
    (text ($number:literal $($unit:ident)?)) => { stringify!($number $($unit)?) };
    (value $type:ty, (None: $text:literal)) => { None };
    (value $type:ty, (Some $amount:tt)) => { Some(default!(value $type, $amount)) };
    (value $type:ty, ($number:literal s)) => { Duration::from_millis(amount!($number s)) };
    (value $type:ty, ($number:literal days)) => { Duration::from_millis(amount!($number days)) };
    (value $type:ty, ($number:literal $($unit:ident)?)) => { amount!($number $($unit)?) };
    (value $type:ty, ($variant:ident)) => { <$type>::$variant };
}

/// A range in one of these forms:
///
/// ```text
/// 64 bytes ..= 1 MiB                      both ends included
/// 1 ms ..= 1 day, or zero: "never"        also zero, and its meaning; for an option, how to write `None`
/// 1 ..= 256, "a power of two"             and a further rule of `validate`
/// bytes: "at least eight segments"        checked by `validate` alone; in this unit
/// any                                     a choice or a switch
/// ```
macro_rules! range {
    (value $type:ty, (any)) => {
        SettingRange { bounds: None, or_zero: false, choices: <$type as Choices>::NAMES, note: "" }
    };
    (value $type:ty, ($unit:ident: $note:literal)) => {
        SettingRange { bounds: None, or_zero: false, choices: &[], note: $note }
    };
    (
        value $type:ty,
        (
            $least:literal $($from:ident)? ..= $most:literal $($to:ident)?
            $(, or zero: $zero:literal)? $(, $note:literal)?
        )
    ) => {
        SettingRange {
            bounds: Some((
                Bound::new(amount!($least $($from)?), stringify!($least $($from)?)),
                Bound::new(amount!($most $($to)?), stringify!($most $($to)?)),
            )),
            or_zero: !concat!($($zero)?).is_empty(),
            choices: &[],
            note: concat!($("or ", $zero)? $($note)?),
        }
    };

    (unit (any)) => { "" };
    (unit ($unit:ident: $note:literal)) => { stringify!($unit) };
    (unit ($least:literal $($from:ident)? ..= $most:literal $($to:ident)? $(, $($rest:tt)+)?)) => {
        amount!(unit $($to)?)
    };

    (doc (any)) => { "" };
    (doc ($unit:ident: $note:literal)) => { concat!(". Range: ", $note) };
    (
        doc
        (
            $least:literal $($from:ident)? ..= $most:literal $($to:ident)?
            $(, or zero: $zero:literal)? $(, $note:literal)?
        )
    ) => {
        concat!(
            ". Range: ", stringify!($least $($from)?), " to ", stringify!($most $($to)?)
            $(, ", or ", $zero)? $(, ", ", $note)?
        )
    };

    (label (any)) => { "Effect and cost" };
    (label $range:tt) => { "More of it" };
}

/// A number with a unit, converted to [`Setting::unit`]; or that unit.
#[rustfmt::skip]
macro_rules! amount {
    ($number:literal) => { $number };
    ($number:literal byte) => { $number };
    ($number:literal bytes) => { $number };
    ($number:literal KiB) => { $number << 10 };
    ($number:literal MiB) => { $number << 20 };
    ($number:literal GiB) => { $number << 30 };
    ($number:literal TiB) => { $number << 40 };
    ($number:literal ms) => { $number };
    ($number:literal s) => { $number * 1000 };
    ($number:literal day) => { $number * 86_400_000 };
    ($number:literal days) => { $number * 86_400_000 };
    ($number:literal years) => { $number * 365 * 86_400_000 };
    // In a field that is not a `Duration`.
    ($number:literal seconds) => { $number };
    ($number:literal bits) => { $number };
    ($number:literal operations) => { $number };
    ($number:literal percent) => { $number };
    ($number:literal records) => { $number };
    ($number:literal runs) => { $number };

    (unit) => { "" };
    (unit KiB) => { "bytes" };
    (unit MiB) => { "bytes" };
    (unit GiB) => { "bytes" };
    (unit TiB) => { "bytes" };
    (unit day) => { "ms" };
    (unit years) => { "ms" };
    (unit $unit:ident) => { stringify!($unit) };
}
