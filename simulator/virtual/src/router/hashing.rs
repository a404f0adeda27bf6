//! The sysctls of a router's multipath hash.

use anyvip_ecmp::{Fields, Hasher, Policy};

/// 0x37: addresses, protocol and ports.
const FIVE_TUPLE: u16 = 0x37;

/// Seed, policies and fields, as the kernel keeps them: the seed for both families, the others for each.
#[derive(Clone, Debug)]
pub struct Hashing {
    seed: u32,
    policies: [u8; 2],
    fields: [u16; 2],
    hashers: [Hasher; 2],
}

impl Hashing {
    /// As routers of a lab begin: policy 3, fields 0x37, a seed of their own.
    pub fn new(seed: u32) -> Hashing {
        let hasher = Hasher::new(seed, Policy::FIVE_TUPLE);
        Hashing { seed, policies: [3; 2], fields: [FIVE_TUPLE; 2], hashers: [hasher.clone(), hasher] }
    }

    /// The hash of one family.
    pub fn hasher(&self, ipv4: bool) -> &Hasher {
        let [v4, v6] = &self.hashers;
        if ipv4 { v4 } else { v6 }
    }

    /// The seed.
    pub fn seed(&self) -> u32 {
        self.seed
    }

    /// Sets one of the sysctls; false if this is none of them.
    ///
    /// # Errors
    /// When the kernel would not take the value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let bad = || format!("{key}={value}: the kernel would not take this value");
        let Some((family, what)) = key
            .strip_prefix("net.ipv")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(family, rest)| Some((family, rest.strip_prefix("fib_multipath_hash_")?)))
        else {
            return Ok(false);
        };
        let number = value.trim().strip_prefix("0x").map_or_else(
            || value.trim().parse::<u32>().map_err(|_| bad()),
            |digits| u32::from_str_radix(digits, 16).map_err(|_| bad()),
        )?;
        let at = match family {
            "4" => 0,
            "6" => 1,
            _ => return Ok(false),
        };
        match (what, at) {
            // It covers IPv6 too. Zero would be a number that nobody can read.
            ("seed", 0) if number > 0 => self.seed = number,
            ("policy", _) if number <= 3 => {
                if let Some(policy) = self.policies.get_mut(at) {
                    *policy = number as u8;
                }
            }
            ("fields", _) => {
                let mask = u16::try_from(number).map_err(|_| bad())?;
                Fields::new(mask).map_err(|_| bad())?;
                if let Some(fields) = self.fields.get_mut(at) {
                    *fields = mask;
                }
            }
            ("seed" | "policy", _) => return Err(bad()),
            _ => return Ok(false),
        }
        for ((hasher, policy), fields) in self.hashers.iter_mut().zip(self.policies).zip(self.fields) {
            let policy = match policy {
                0 => Policy::Layer3,
                1 => Policy::Layer4,
                2 => Policy::InnerLayer3,
                _ => Policy::Custom(Fields::new(fields).map_err(|_| bad())?),
            };
            *hasher = Hasher::new(self.seed, policy);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_policy_and_fields_are_the_kernels_sysctls() {
        let mut hashing = Hashing::new(7);
        assert_eq!(hashing.hasher(true).policy(), Policy::FIVE_TUPLE);
        assert_eq!(hashing.set("net.ipv4.fib_multipath_hash_policy", "0"), Ok(true));
        assert_eq!(hashing.hasher(true).policy(), Policy::Layer3);
        assert_eq!(hashing.hasher(false).policy(), Policy::FIVE_TUPLE);
        assert_eq!(hashing.set("net.ipv6.fib_multipath_hash_fields", "0x07"), Ok(true));
        assert_eq!(hashing.hasher(false).policy(), Policy::Custom(Fields::new(7).unwrap()));
        assert_eq!(hashing.set("net.ipv4.fib_multipath_hash_seed", "0x1092"), Ok(true));
        assert_eq!((hashing.seed(), hashing.hasher(false).seed()), (0x1092, 0x1092));
        assert_eq!(hashing.set("net.ipv4.conf.all.rp_filter", "1"), Ok(false));
        for (key, value) in [("policy", "4"), ("seed", "0"), ("seed", "x"), ("fields", "0x10000")] {
            assert!(
                hashing.set(&format!("net.ipv4.fib_multipath_hash_{key}"), value).is_err(),
                "{key}={value}"
            );
        }
    }
}
