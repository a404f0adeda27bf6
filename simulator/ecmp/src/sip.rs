//! SipHash-2-4 over whole 64-bit words, with a state that can be kept where many messages begin alike; and the kernel's jhash
//! of two words.

/// The state after some words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sip {
    v: [u64; 4],
}

impl Sip {
    /// Both halves of the key.
    pub(crate) const fn new(key: [u64; 2]) -> Sip {
        Sip {
            v: [
                key[0] ^ 0x736f_6d65_7073_6575,
                key[1] ^ 0x646f_7261_6e64_6f6d,
                key[0] ^ 0x6c79_6765_6e65_7261,
                key[1] ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.v;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*b);
        *a = a.wrapping_add(*d);
        *b = b.rotate_left(17) ^ *c;
        *d = d.rotate_left(21) ^ *a;
        *c = c.rotate_left(32);
    }

    /// One more word.
    #[inline(always)]
    pub(crate) fn word(mut self, word: u64) -> Sip {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
        self
    }

    /// The hash of a message of `bytes` bytes, a multiple of 8, all of which have been taken in.
    #[inline(always)]
    pub(crate) fn finish(self, bytes: u64) -> u64 {
        let mut end = self.word(bytes << 56);
        end.v[2] ^= 0xff;
        end.round();
        end.round();
        end.round();
        end.round();
        end.v[0] ^ end.v[1] ^ end.v[2] ^ end.v[3]
    }
}

/// `jhash_2words(a, b, 0)` of the kernel.
#[inline(always)]
pub(crate) const fn jhash_2words(a: u32, b: u32) -> u32 {
    let mut c = 0xdead_beef_u32.wrapping_add(8);
    let mut a = a.wrapping_add(c);
    let mut b = b.wrapping_add(c);
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// Spreads 64 bits over 64 bits, each output bit depending on each input bit (the finaliser of MurmurHash3). For models only.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the paper's reference implementation: key 00…0f, messages of 0, 8 and 16 bytes counting up from 00.
    #[test]
    fn siphash_gives_the_published_vectors() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(Sip::new(key).finish(0), 0x726f_db47_dd0e_0e31);
        assert_eq!(Sip::new(key).word(key[0]).finish(8), 0x93f5_f579_9a93_2462);
        assert_eq!(Sip::new(key).word(key[0]).word(key[1]).finish(16), 0x3f2a_cc7f_57c2_9bdb);
    }

    #[test]
    fn jhash_gives_the_kernels_value() {
        assert_eq!(jhash_2words(1, 2), 0x8b4c_7979);
    }
}
