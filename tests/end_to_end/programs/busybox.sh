# One static program that is many.
cd /tmp
b() { busybox "$@"; }
b seq 1 2000 > numbers
for sum in md5sum sha1sum sha256sum sha512sum sha3sum crc32; do
    echo "$sum $(b $sum < numbers)"
done
b awk '{ sum += $1 / 7 + int($1 / 3) * 1e-5; text = text substr($1, 1, 1) } END { printf "%.17g %d %s\n", sum, NR, substr(text, 1900) }' numbers
echo 'scale = 40; 4 * a(1); e(1); sqrt(2)^3; 2^200 % 1000007' | b bc -l
echo '2 3 ^ 17 % p' | b dc
b gzip -c numbers > packed.gz && b gunzip -c packed.gz | b cmp - numbers
b bzip2 -c numbers | b bunzip2 | b md5sum
b tar cf - numbers | b tar tf -
b uuencode -m numbers numbers | b tail -n 3
b od -A d -t x1 numbers | b head -n 3
b sort -rn numbers | b head -n 3 | b tr '\n' ' '
b printf '%e %f %g\n' 12345.678 0.1 1e100
b expr 1073741824 '*' 4 + 7
b factor 1000000007 1099511627791
b dd if=numbers bs=100 count=1 skip=7 2>/dev/stdout | b hexdump -C | b head -n 4
i=0; while [ $i -lt 300 ]; do i=$((i + 1)); done; echo $i $((1 << 40)) $((-17 / 5)) $((0xffffffff * 0xffffffff))
