//! The country of an address, from a database in MaxMind's format.
//!
//! Owns [`Countries`]: a database that was read whole (never mapped: a file that is overwritten in
//! place would end the daemon) and found to have countries. The layouts of the free databases are
//! known: GeoLite2 and DB-IP (`country.iso_code`), IPinfo (`country_code`, or `country` with the
//! code itself). The result of a look-up is checked: what does not decode to two letters is not a
//! country. A database never changes. A new file is a new one.

use std::{net::IpAddr, path::Path};

use maxminddb::{LookupResult, PathElement, Reader, WithinOptions};

use super::Country;
use crate::{state::files, text::clean_start};

/// No database of countries is as large; what is larger is something else.
const LARGEST: u64 = 512 << 20;
/// How many of its networks are looked at for the first country: in a real database one of the
/// first ten has it.
const PROBED: usize = 10_000;
/// Where a record may have the code.
const LAYOUTS: [&[PathElement<'static>]; 3] = [
    &[PathElement::Key("country"), PathElement::Key("iso_code")],
    &[PathElement::Key("country_code")],
    &[PathElement::Key("country")],
];

/// A database of countries.
#[derive(Debug)]
pub struct Countries {
    reader: Reader<Vec<u8>>,
    /// Where its records have the code.
    layout: &'static [PathElement<'static>],
}

impl Countries {
    /// Reads a database.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(path: &Path) -> Result<Self, String> {
        let bytes = read(path).map_err(|why| format!("read {}: {why}", path.display()))?;
        Self::from_bytes(bytes).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// Takes the content of a database file.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        let reader = Reader::from_source(bytes).map_err(|e| {
            format!("this is not a whole database in MaxMind's format ({e}): fetch the .mmdb file again, and unpack it")
        })?;
        let layout = layout_of(&reader).ok_or_else(|| {
            let kind = clean_start(&reader.metadata().database_type, 40);
            format!("a database of the kind `{kind}` has no countries: take one such as GeoLite2-Country")
        })?;
        Ok(Self { reader, layout })
    }

    /// The country of `ip`; `None` where the database does not know it.
    pub fn country(&self, ip: IpAddr) -> Option<Country> {
        code(&self.reader.lookup(ip.to_canonical()).ok()?, self.layout)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = files::read(path, LARGEST).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("more than {} MiB are no database of countries", LARGEST >> 20));
    }
    Ok(bytes)
}

/// The layout by which the first record with a country has it.
fn layout_of(reader: &Reader<Vec<u8>>) -> Option<&'static [PathElement<'static>]> {
    let networks = reader.networks(WithinOptions::default()).ok()?;
    networks
        .take(PROBED)
        .filter_map(Result::ok)
        .find_map(|record| LAYOUTS.into_iter().find(|layout| code(&record, layout).is_some()))
}

fn code(record: &LookupResult<'_, Vec<u8>>, layout: &[PathElement<'_>]) -> Option<Country> {
    Country::new(record.decode_path::<&str>(layout).ok()??)
}

#[cfg(test)]
mod tests {
    use std::{fs, net::Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::fixture::mmdb;

    const WORLD: [(&str, &str); 4] = [
        ("192.0.2.0/24", "DE"),
        ("198.51.100.128/25", "FR"),
        ("2001:db8::/32", "NL"),
        ("203.0.113.7/32", "US"),
    ];

    fn find(countries: &Countries, ip: &str) -> Option<Country> {
        countries.country(ip.parse().unwrap())
    }

    #[test]
    fn an_address_has_the_country_of_its_network() {
        let countries = Countries::from_bytes(mmdb::database(&WORLD)).unwrap();
        assert_eq!(find(&countries, "192.0.2.200"), Country::new("DE"));
        assert_eq!(find(&countries, "::ffff:192.0.2.200"), Country::new("DE"));
        assert_eq!(find(&countries, "198.51.100.129"), Country::new("FR"));
        assert_eq!(find(&countries, "198.51.100.1"), None);
        assert_eq!(find(&countries, "2001:db8:1::1"), Country::new("NL"));
        assert_eq!(find(&countries, "2001:db9::1"), None);
        assert_eq!(find(&countries, "203.0.113.7"), Country::new("US"));
        assert_eq!(find(&countries, "127.0.0.1"), None);
    }

    #[test]
    fn every_layout_of_the_free_databases_is_understood() {
        for record in [mmdb::country_code("DE"), mmdb::country_text("DE")] {
            let bytes = mmdb::with_records("ipinfo country.mmdb", &[("192.0.2.0/24", record)]);
            let countries = Countries::from_bytes(bytes).unwrap();
            assert_eq!(find(&countries, "192.0.2.1"), Country::new("DE"));
        }
    }

    #[test]
    fn what_is_no_database_of_countries_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            Countries::open(&path).map(|_| ()).unwrap_err()
        };
        let whole = mmdb::database(&WORLD);
        for (name, content) in
            [("empty", &[][..]), ("text", b"# a list"), ("half", &whole[..whole.len() / 2])]
        {
            let message = open(name, content);
            assert!(message.contains(name) && message.contains("not a whole database"), "{message}");
        }
        let asn = mmdb::with_records("GeoLite2-ASN", &[("192.0.2.0/24", mmdb::map(&[("org", b"\x43abc")]))]);
        assert!(open("asn", &asn).contains("`GeoLite2-ASN` has no countries: take"));
        assert!(Countries::open(dir.path()).unwrap_err().contains("it is a directory"));
        assert!(Countries::open(&dir.path().join("none")).unwrap_err().contains("No such file"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_hostile_database_is_refused_or_knows_less_without_harm(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
            cut in proptest::option::of(any::<prop::sample::Index>()),
            ips in proptest::collection::vec(any::<u32>(), 4),
        ) {
            let mut bytes = mmdb::database(&WORLD);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Ok(countries) = Countries::from_bytes(bytes) {
                for ip in ips {
                    let _ = countries.country(Ipv4Addr::from(ip).into());
                }
                for ip in ["192.0.2.1", "198.51.100.200", "2001:db8::1", "::", "203.0.113.7"] {
                    let _ = find(&countries, ip);
                }
            }
        }
    }
}
