//! The most shares of a pack that lie on distinct failure domains: a maximum matching, grown in stages so that what an
//! earlier stage could match stays matched.

/// Shares and domains, both by number; who is matched to whom.
#[derive(Clone)]
pub(super) struct Matching {
    edges: Vec<Vec<usize>>,
    of_share: Vec<Option<usize>>,
    of_domain: Vec<Option<usize>>,
}

impl Matching {
    /// No edges yet.
    pub(super) fn new(shares: usize, domains: usize) -> Self {
        Self {
            edges: vec![Vec::new(); shares],
            of_share: vec![None; shares],
            of_domain: vec![None; domains],
        }
    }

    /// Adds edges and matches as many shares more as they allow.
    pub(super) fn grow(&mut self, edges: impl IntoIterator<Item = (usize, usize)>) {
        for (share, domain) in edges {
            if !self.edges[share].contains(&domain) {
                self.edges[share].push(domain);
            }
        }
        for share in 0..self.edges.len() {
            if self.of_share[share].is_none() {
                let mut seen = vec![false; self.of_domain.len()];
                self.augment(share, &mut seen);
            }
        }
    }

    /// Shares that are matched.
    pub(super) fn size(&self) -> usize {
        self.of_share.iter().flatten().count()
    }

    /// Whether a share is matched.
    pub(super) fn has_share(&self, share: usize) -> bool {
        self.of_share[share].is_some()
    }

    /// Whether a domain is matched.
    pub(super) fn has_domain(&self, domain: usize) -> bool {
        self.of_domain[domain].is_some()
    }

    /// Kuhn's augmenting path; at most as deep as there are shares in a pack.
    fn augment(&mut self, share: usize, seen: &mut [bool]) -> bool {
        for edge in 0..self.edges[share].len() {
            let domain = self.edges[share][edge];
            if std::mem::replace(&mut seen[domain], true) {
                continue;
            }
            let free = match self.of_domain[domain] {
                None => true,
                Some(other) => self.augment(other, seen),
            };
            if free {
                self.of_domain[domain] = Some(share);
                self.of_share[share] = Some(domain);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_gives_way_when_it_has_another_domain() {
        let mut matching = Matching::new(2, 2);
        matching.grow([(0, 0), (0, 1)]);
        matching.grow([(1, 0)]);
        assert_eq!(matching.size(), 2);
        assert!(matching.has_share(0) && matching.has_share(1) && matching.has_domain(0) && matching.has_domain(1));
    }

    #[test]
    fn two_shares_on_one_domain_count_once() {
        let mut matching = Matching::new(2, 3);
        matching.grow([(0, 2), (1, 2)]);
        assert_eq!(matching.size(), 1);
        assert!(!matching.has_domain(0));
    }
}
