#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| anyvip_fuzz::bfd(data));
