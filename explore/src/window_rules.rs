//! What must be found in the windows of a fault, whatever else is allowed there.

use crate::oracle::judge::Fault;
use crate::recover::Shape;
use crate::run::{Judged, Run, State};
use crate::target::Laboratory;
use crate::verdict::Class;

impl<L: Laboratory> Run<'_, L> {
    /// Windows W0 to W2 must be old, W5 and later must be new, whatever else is allowed there.
    pub fn judge_windows(&self, states: &[State], judged: &mut [Judged]) {
        if self.skips_oracle() {
            return;
        }
        for fault in 0..self.points.faults.len() {
            let shapes = self.shapes_of_windows(fault, states, judged);
            let old = only(&shapes, |window| window == 0);
            let new = self.shape_of_everything(fault, 5, states, judged);
            for (number, state) in states.iter().enumerate() {
                for (place, (point, _)) in state.at.iter().enumerate() {
                    let Some((of, window)) = self.points.points[*point].window.filter(|(of, _)| *of == fault)
                    else {
                        continue;
                    };
                    let Some(shape) = judged[number].shape.clone() else { continue };
                    let found = match window {
                        1 | 2 => old
                            .as_ref()
                            .filter(|old| **old != shape)
                            .map(|_| (Class::NotAtomic, "is there before its commit record was written")),
                        5.. => new
                            .as_ref()
                            .filter(|new| **new != shape)
                            .map(|_| (Class::Lost, "is not there although its commit was fenced")),
                        _ => None,
                    };
                    if let Some((class, how)) = found {
                        let text =
                            format!("fault {of} in window W{window}: the extent that it allocated {how}");
                        judged[number].faults[place].push(Fault {
                            class,
                            promise: None,
                            subject: format!("fault {of}"),
                            range: None,
                            text,
                        });
                    }
                }
            }
        }
    }

    fn shapes_of_windows(&self, fault: usize, states: &[State], judged: &[Judged]) -> Vec<(u8, Shape)> {
        let places = states
            .iter()
            .zip(judged)
            .flat_map(|(state, judged)| state.at.iter().map(move |(point, choice)| (*point, choice, judged)));
        places
            .filter(|(point, choice, _)| !self.points.points[*point].is_only_strict(choice))
            .filter_map(|(point, _, judged)| {
                let (_, window) = self.points.points[point].window.filter(|(of, _)| *of == fault)?;
                Some((window, judged.shape.clone()?))
            })
            .collect()
    }

    /// What came back in the first point of the window when everything in flight had arrived.
    fn shape_of_everything(
        &self,
        fault: usize,
        window: u8,
        states: &[State],
        judged: &[Judged],
    ) -> Option<Shape> {
        let point = self.points.points.iter().position(|point| point.window == Some((fault, window)))?;
        let id = self.points.points[point].media.state_id(&self.points.points[point].media.everything());
        let state = states.iter().position(|state| state.id == id)?;
        judged[state].shape.clone()
    }
}

/// The one shape that all states of these windows have, if they agree.
fn only(shapes: &[(u8, Shape)], wanted: impl Fn(u8) -> bool) -> Option<Shape> {
    let mut fitting = shapes.iter().filter(|(window, _)| wanted(*window)).map(|(_, shape)| shape);
    let first = fitting.next()?;
    fitting.all(|shape| shape == first).then(|| first.clone())
}
