# Digests, ciphers and signatures of known data.
cd /tmp
seq 1 4000 > data
openssl version
openssl list -digest-algorithms
for digest in md5 sha1 sha224 sha256 sha384 sha512 sha512-256 sha3-256 shake256 blake2b512 blake2s256 ripemd160 sm3; do
    openssl dgst -$digest data
done
openssl dgst -sha256 -hmac key data
openssl mac -macopt cipher:AES-128-CBC -macopt hexkey:000102030405060708090a0b0c0d0e0f -in data CMAC
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
for cipher in aes-128-cbc aes-256-cbc aes-256-ctr aes-256-ecb aes-192-ofb camellia-256-cbc aria-128-ctr chacha20 sm4-cbc; do
    openssl enc -$cipher -K $key -iv 0f0e0d0c0b0a09080706050403020100 -in data -out sealed 2>/dev/stdout | grep -v hex
    openssl enc -d -$cipher -K $key -iv 0f0e0d0c0b0a09080706050403020100 -in sealed 2>/dev/stdout | grep -v hex | cmp - data && echo "$cipher $(sha256sum < sealed)"
done
openssl enc -aes-256-cbc -pbkdf2 -iter 1000 -S 0102030405060708 -k secret -in data | sha256sum
openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexkey:0b0b -kdfopt hexsalt:0c0c -kdfopt info:x HKDF
for number in 18446744073709551557 18446744073709551559 170141183460469231731687303715884105727; do
    openssl prime $number
done
# A seed makes an Ed25519 key; its signatures are a function of key and data.
printf '302e020100300506032b657004220420%064d' 7 | sed 's/../\\x&/g' > hex
/usr/bin/printf "$(cat hex)" > ed.der
openssl pkey -inform DER -in ed.der -pubout -out ed.pub && cat ed.pub
openssl pkeyutl -sign -rawin -inkey ed.der -keyform DER -in data -out ed.sig && sha256sum ed.sig
openssl pkeyutl -verify -rawin -pubin -inkey ed.pub -in data -sigfile ed.sig
# These keys are random: what is compared is that their signatures verify, and those of other data do not.
openssl genrsa -out rsa.key 1024 2>err || cat err
openssl ecparam -name prime256v1 -genkey -noout -out ec.key
openssl ecparam -name secp384r1 -genkey -noout -out ec384.key
echo other > other
for name in rsa ec ec384; do
    openssl pkey -in $name.key -pubout -out $name.pub
    openssl dgst -sha256 -sign $name.key -out $name.sig data
    echo "$name: $(openssl dgst -sha256 -verify $name.pub -signature $name.sig data)"
    echo "$name: $(openssl dgst -sha256 -verify $name.pub -signature $name.sig other 2>err)"
done
openssl rsa -in rsa.key -check -noout
openssl ec -in ec.key -check -noout 2>/dev/stdout
