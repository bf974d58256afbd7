# A shell and coreutils, the same on the host and in the guest.
set -u
cd /tmp
seq 1 3000 > numbers
sort -R --random-source=numbers numbers > shuffled
echo "shuffled: $(sha256sum < shuffled)"
echo "sorted: $(sort -n shuffled | md5sum)"
for sum in md5sum sha1sum sha224sum sha384sum sha512sum b2sum cksum sum; do
    echo "$sum: $($sum < shuffled)"
done
echo "base64: $(base64 shuffled | tail -n 1)"
echo "base32: $(base64 shuffled | base32 | cksum)"
tr '0-9' 'a-j' < numbers | fold -w 40 | nl | tail -n 2
paste numbers shuffled | cut -f 2 | sort | join - numbers --nocheck-order | wc
od -A d -t x8z -t d4 -t fF numbers | head -n 5
printf '%.17g %a %e %x\n' 0.1 0.1 12345.6789 255
expr 123456789012345678901234567890 '*' 987654321098765432109876543210
# Numbers of more than 128 bits go through another buffer: line by line the order is that of the terminal.
for number in 18446744073709551557 340282366920938463463374607431768211297 10000000000000000000001; do factor $number; done
seq -f %.3e 1 0.37 4
split -b 1000 numbers piece. && cat piece.* | cmp - numbers && rm piece.*
grep -n -E '(1|2)7+$' numbers | sed -E 's/([0-9])7/<\1>/g' | head -n 4
sort numbers > one; sort -r shuffled | sort > two; comm -12 one two | wc -l
tsort <<END
a b
b c
a d
d c
END
mkdir -p deep/er && cp -a numbers deep/er/ && ln -sf er/numbers deep/link && ls -RF deep && stat -L -c '%a %s %F' deep/link
dd if=numbers bs=7 skip=3 count=5 status=none | od -c
n=0
while test $n -lt 200; do n=$((n + 1)); done
echo "$n $((0x7fffffffffffffff % 1000003)) $((-7 / 2)) $((-7 % 3)) $((1 << 40))"
(trap 'echo caught' USR1; kill -USR1 $(sh -c 'echo $PPID'); echo behind)
sh -c 'exit 7'; echo "status $?"
sh -c 'kill -SEGV $$'; echo "status $?"
date -u -d @1700000000 +%Y-%m-%dT%H:%M:%S
numfmt --to=iec 123456789012
ptx -w 40 <<END
the quick brown fox
END
