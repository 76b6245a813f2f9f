// SPDX-License-Identifier: GPL-2.0

//! What a power cut or a reset may leave of a host.

use crate::{
    disk::{Block, Value},
    host::Host,
};

impl Host {
    /// Every state in which this host may be found after a power cut (`cut`) or a reset.
    pub fn aftermath(&self, cut: bool) -> Vec<Host> {
        let in_flight: Vec<(usize, Value)> = self
            .on
            .iter()
            .flat_map(|on| on.round.iter().chain(&on.copying).copied())
            .collect();
        let dead = Host {
            sb: self.on_device().clone(),
            left: None,
            on: None,
            booting: None,
            pending: None,
            ..self.clone()
        };
        let mut all = Vec::new();
        for log in self.log.aftermath(cut) {
            all.push(Host {
                log,
                ..dead.clone()
            });
        }
        if let Some((sb, _)) = &self.pending {
            let finds = self.sb.writing(sb).cut;
            let with = |h: &Host| Host {
                sb: sb.clone(),
                ..h.clone()
            };
            let written: Vec<Host> = all.iter().filter(|_| finds.new).map(with).collect();
            all.retain(|_| finds.former);
            all.extend(written);
        }
        for b in 0..self.vols.len() {
            let mut choices: Vec<Block> = Vec::new();
            let block = &self.vols[b];
            let coming: Vec<Value> = in_flight.iter().filter(|w| w.0 == b).map(|w| w.1).collect();
            if cut {
                for v in block.possible().chain(coming) {
                    choices.push(Block::new(v));
                }
            } else {
                let still = Block {
                    marked: 0,
                    ..block.clone()
                };
                for v in coming {
                    let mut landed = still.clone();
                    landed.write(v);
                    choices.push(landed);
                }
                choices.push(still);
            }
            choices.sort_by(|a, b| (a.durable, &a.cache).cmp(&(b.durable, &b.cache)));
            choices.dedup();
            all = all
                .iter()
                .flat_map(|h| {
                    choices.iter().map(move |c| {
                        let mut h = h.clone();
                        h.vols[b] = c.clone();
                        h
                    })
                })
                .collect();
        }
        all.dedup();
        all
    }
}
