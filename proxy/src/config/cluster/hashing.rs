//! Ring hash and maglev: the sizes of their tables and what of a host is hashed.

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::cluster::v3::cluster::{
            MaglevLbConfig, RingHashLbConfig, ring_hash_lb_config::HashFunction as LegacyHashFunction,
        },
        extensions::load_balancing_policies::{
            common::v3::ConsistentHashingLbConfig,
            maglev::v3::Maglev,
            ring_hash::v3::{RingHash, ring_hash::HashFunction as ProtoHashFunction},
        },
    },
};

pub(super) use weft_xds::pb::envoy::config::cluster::v3::cluster::common_lb_config::ConsistentHashingLbConfig as LegacyConsistentHashing;

use crate::config::field::{self, Result, Within as _, refuse};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingHashConfig {
    pub minimum_ring_size: u64,
    /// At least the minimum.
    pub maximum_ring_size: u64,
    pub hash_function: HashFunction,
    pub hashing: ConsistentHashing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaglevConfig {
    /// A prime number, so that every permutation reaches every entry.
    pub table_size: u64,
    pub hashing: ConsistentHashing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    XxHash,
    MurmurHash2,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsistentHashing {
    /// Instead of the address.
    pub use_hostname: bool,
    /// No host carries more than so many percent of the average load; None: as much as comes.
    pub balance_factor: Option<u32>,
}

const MINIMUM_RING_SIZE: u64 = 1024;
const RING_SIZE_MAX: u64 = 8 * 1024 * 1024;
const TABLE_SIZE: u64 = 65_537;
const TABLE_SIZE_MAX: u64 = 5_000_011;
/// Bounded loads below the average could not carry the load.
const BALANCE_FACTOR_MIN: u32 = 100;

impl RingHashConfig {
    #[expect(deprecated, reason = "older spellings that control planes still send")]
    pub(super) fn from_proto(message: RingHash) -> Result<Self> {
        let RingHash {
            hash_function,
            minimum_ring_size,
            maximum_ring_size,
            use_hostname_for_hashing,
            hash_balance_factor,
            consistent_hashing_lb_config,
            locality_weighted_lb_config: _, // read by the caller
        } = message;
        let hash_function = match field::enumeration(hash_function, "hash_function")? {
            ProtoHashFunction::DefaultHash | ProtoHashFunction::XxHash => HashFunction::XxHash,
            ProtoHashFunction::MurmurHash2 => HashFunction::MurmurHash2,
        };
        let hashing = match consistent_hashing_lb_config {
            Some(message) => ConsistentHashing::from_proto(message).within("consistent_hashing_lb_config")?,
            None => ConsistentHashing {
                use_hostname: use_hostname_for_hashing,
                balance_factor: hash_balance_factor.map(|factor| factor.value),
            },
        };
        let sizes = (minimum_ring_size.map(|size| size.value), maximum_ring_size.map(|size| size.value));
        Self::new(sizes, hash_function, hashing)
    }

    pub(super) fn from_legacy(message: RingHashLbConfig, hashing: Option<LegacyConsistentHashing>) -> Result<Self> {
        let RingHashLbConfig { minimum_ring_size, hash_function, maximum_ring_size } = message;
        let hash_function = match field::enumeration(hash_function, "hash_function")? {
            LegacyHashFunction::XxHash => HashFunction::XxHash,
            LegacyHashFunction::MurmurHash2 => HashFunction::MurmurHash2,
        };
        let sizes = (minimum_ring_size.map(|size| size.value), maximum_ring_size.map(|size| size.value));
        Self::new(sizes, hash_function, ConsistentHashing::from_legacy(hashing))
    }

    fn new(
        (minimum, maximum): (Option<u64>, Option<u64>),
        hash_function: HashFunction,
        hashing: ConsistentHashing,
    ) -> Result<Self> {
        let minimum_ring_size = minimum.unwrap_or(MINIMUM_RING_SIZE);
        let maximum_ring_size = maximum.unwrap_or(RING_SIZE_MAX);
        for (size, path) in [(minimum_ring_size, "minimum_ring_size"), (maximum_ring_size, "maximum_ring_size")] {
            if size > RING_SIZE_MAX {
                return Err(FieldError::new(path, format!("value must be less than or equal to {RING_SIZE_MAX}")));
            }
        }
        if minimum_ring_size > maximum_ring_size {
            let reason = format!("minimum_ring_size ({minimum_ring_size}) > maximum_ring_size ({maximum_ring_size})");
            return Err(FieldError::new("minimum_ring_size", reason));
        }
        hashing.check()?;
        Ok(Self { minimum_ring_size, maximum_ring_size, hash_function, hashing })
    }
}

impl MaglevConfig {
    pub(super) fn from_proto(message: Maglev) -> Result<Self> {
        let Maglev {
            table_size,
            consistent_hashing_lb_config,
            locality_weighted_lb_config: _, // read by the caller
        } = message;
        let hashing = match consistent_hashing_lb_config {
            Some(message) => ConsistentHashing::from_proto(message).within("consistent_hashing_lb_config")?,
            None => ConsistentHashing::default(),
        };
        Self::new(table_size.map(|size| size.value), hashing)
    }

    pub(super) fn from_legacy(message: MaglevLbConfig, hashing: Option<LegacyConsistentHashing>) -> Result<Self> {
        let MaglevLbConfig { table_size } = message;
        Self::new(table_size.map(|size| size.value), ConsistentHashing::from_legacy(hashing))
    }

    fn new(table_size: Option<u64>, hashing: ConsistentHashing) -> Result<Self> {
        let table_size = table_size.unwrap_or(TABLE_SIZE);
        if table_size > TABLE_SIZE_MAX {
            let reason = format!("value must be less than or equal to {TABLE_SIZE_MAX}");
            return Err(FieldError::new("table_size", reason));
        }
        if !is_prime(table_size) {
            return Err(FieldError::new("table_size", "the table size of maglev must be prime number"));
        }
        hashing.check()?;
        Ok(Self { table_size, hashing })
    }
}

impl ConsistentHashing {
    fn from_proto(message: ConsistentHashingLbConfig) -> Result<Self> {
        let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor, hash_policy } = message;
        refuse!(hash_policy);
        Ok(Self {
            use_hostname: use_hostname_for_hashing,
            balance_factor: hash_balance_factor.map(|factor| factor.value),
        })
    }

    fn from_legacy(message: Option<LegacyConsistentHashing>) -> Self {
        let Some(LegacyConsistentHashing { use_hostname_for_hashing, hash_balance_factor }) = message else {
            return Self::default();
        };
        Self { use_hostname: use_hostname_for_hashing, balance_factor: hash_balance_factor.map(|factor| factor.value) }
    }

    fn check(self) -> Result<()> {
        match self.balance_factor {
            Some(factor) if factor < BALANCE_FACTOR_MIN => {
                let reason = format!("value must be greater than or equal to {BALANCE_FACTOR_MIN}");
                Err(FieldError::new("hash_balance_factor", reason))
            }
            _ => Ok(()),
        }
    }
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}
