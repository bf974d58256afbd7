#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pmemsim_fuzz::readers::kernel(data));
